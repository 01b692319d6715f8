// What an admin changes. Each change: a form, then a sentence that says what will happen, then the call, with a key of its own, so that
// "again" after a lost connection never does it twice.

import { call, mayPass, newKey, patiently, Problem } from './calls.js';
import { confirmDialog, field, openDialog } from './dialogs.js';
import { announce, byId, formatCount, formatDate, formatPrice, h, parsePrice, plural, priceAsNumber, priceStep } from './dom.js';
import { serverClock } from './figures.js';

const UNITS_MAX = 1000000000;
const changed = new EventTarget();
export const onChanged = (listener) => changed.addEventListener('change', listener);

const quoted = (product) => `“${product.name}”`;
const reasonField = () => field('Reason', { name: 'reason', required: true, maxlength: 200, autocomplete: 'off' }, 'Stands in the audit log, for everybody who reads it.');

async function send(change, say, signal) {
  const waiting = (error, seconds) => say(`No answer yet. Trying again by itself in ${seconds} s; it cannot be done twice.`, 'waiting');
  try {
    say('Waiting until it is written down …', 'waiting');
    await patiently(() => call('POST', change.path, { json: change.json, key: change.key }), waiting, signal);
    announce(change.done);
    changed.dispatchEvent(new Event('change'));
    return true;
  } catch (error) {
    const inDoubt = signal.aborted && mayPass(error);
    say(error instanceof Problem && !inDoubt ? error.words
      : 'No answer, and whether it was done is not known: the same button again cannot do it twice, or look at the audit log.');
    return false;
  }
}

// `read(values)` makes the change of the form's values: { words, done, path, json, submit, submitClass }, or throws an Error with what is wrong.
async function ask(title, body, read) {
  let change = null;
  const filledIn = await openDialog({
    title,
    body,
    submit: 'Continue',
    onSubmit: (values, say) => {
      try {
        change = { key: newKey(), ...read(values) };
        return true;
      } catch (error) {
        say(error.message);
        return false;
      }
    },
  });
  if (!filledIn) return;
  await confirmDialog({
    title: 'This will happen',
    words: change.words,
    submit: change.submit,
    submitClass: change.submitClass,
    cancel: 'Do nothing',
    onSubmit: (values, say, signal) => send(change, say, signal),
  });
}

function restock(product) {
  ask(`Restock ${quoted(product)}`, [field('Units to add', { name: 'units', type: 'number', min: 1, max: UNITS_MAX, required: true, autofocus: true }), reasonField()], ({ units, reason }) => ({
    words: [`${plural(Number(units), 'unit', 'units')} of ${quoted(product)} go on sale at once, beside the ${formatCount(product.stock)} that are left.`, `Reason: ${reason}`],
    submit: `Add ${formatCount(Number(units))}`,
    done: `${quoted(product)} restocked by ${units}.`,
    path: `/api/admin/products/${product.id}/stock`,
    json: { delta: Number(units), reason },
  }));
}

function withdraw(product) {
  ask(`Withdraw ${quoted(product)}`, [field('Units to take off sale', { name: 'units', type: 'number', min: 1, max: UNITS_MAX, required: true, autofocus: true }), reasonField()], ({ units, reason }) => ({
    words: [`${plural(Number(units), 'unit', 'units')} of ${quoted(product)} are taken off sale at once, of the ${formatCount(product.stock)} that are left. If fewer are left by then, nothing is taken.`, `Reason: ${reason}`],
    submit: `Withdraw ${formatCount(Number(units))}`,
    submitClass: 'danger',
    done: `${units} of ${quoted(product)} withdrawn.`,
    path: `/api/admin/products/${product.id}/stock`,
    json: { delta: -Number(units), reason },
  }));
}

function changePrice(product) {
  ask(`Price of ${quoted(product)}`, [field('New price', { name: 'price', type: 'number', min: priceStep, step: priceStep, value: priceAsNumber(product.price), required: true, autofocus: true }), reasonField()], ({ price, reason }) => ({
    words: [`${quoted(product)} costs ${formatPrice(parsePrice(price))} instead of ${formatPrice(product.price)}, for every order from now on. Orders made before keep their price.`, `Reason: ${reason}`],
    submit: 'Change the price',
    done: `${quoted(product)} costs ${formatPrice(parsePrice(price))}.`,
    path: `/api/admin/products/${product.id}/price`,
    json: { price: parsePrice(price), reason },
  }));
}

// --- opening and closing ---
// A form's time is the admin's own; the server's are UTC.
const toServer = (local) => (local === '' ? null : new Date(local).toISOString());

function toForm(at) {
  if (!at) return '';
  const date = new Date(at);
  return new Date(date.getTime() - date.getTimezoneOffset() * 60000).toISOString().slice(0, 19);
}

function windowChange(product, { how, starts, ends }) {
  if (how === 'open') {
    return { json: { starts_at: 'now', ends_at: null }, words: `The sale of ${quoted(product)} opens now and stays open until it is closed. Everybody can buy at once.`, submit: 'Open the sale' };
  }
  if (how === 'close') {
    // One that has not begun would end before it begins: its beginning goes too.
    const begun = !product.starts_at || Date.parse(product.starts_at) <= serverClock.now;
    const loses = begun ? '' : ' The time at which it was to open is taken away.';
    return { json: begun ? { ends_at: 'now' } : { starts_at: null, ends_at: 'now' }, words: `The sale of ${quoted(product)} closes now. Nobody can buy any more; orders that were made stay.${loses}`, submit: 'Close the sale', submitClass: 'danger' };
  }
  // Only what was changed here is sent: what another admin has set meanwhile stays.
  const json = {};
  const isAsItWas = (text, at) => toServer(text) === toServer(toForm(at));
  if (!isAsItWas(starts, product.starts_at)) json.starts_at = toServer(starts);
  if (!isAsItWas(ends, product.ends_at)) json.ends_at = toServer(ends);
  const startsAt = 'starts_at' in json ? json.starts_at : product.starts_at;
  const endsAt = 'ends_at' in json ? json.ends_at : product.ends_at;
  if (Object.keys(json).length === 0) throw new Error('These are the times that there are.');
  if (startsAt && endsAt && Date.parse(endsAt) <= Date.parse(startsAt)) throw new Error('The sale must end after it begins.');
  const from = startsAt ? `is open from ${formatDate(startsAt)}` : 'is open at once';
  return { json, words: `The sale of ${quoted(product)} ${from} ${endsAt ? `until ${formatDate(endsAt)}` : 'and has no end'}, by the server’s clock.`, submit: 'Set these times' };
}

function changeWindow(product) {
  const choice = (value, text, checked) => h('label', {}, h('input', { type: 'radio', name: 'how', value, checked, required: true }), text);
  ask(`Open or close ${quoted(product)}`, [
    h('fieldset', { class: 'choices' }, h('legend', { class: 'unseen' }, 'What to do'),
      choice('open', 'Open it now', false), choice('close', 'Close it now', false), choice('times', 'Set times:', true)),
    field('Opens', { name: 'starts', type: 'datetime-local', step: 1, value: toForm(product.starts_at) }, 'Empty: open at once.'),
    field('Ends', { name: 'ends', type: 'datetime-local', step: 1, value: toForm(product.ends_at) }, 'Empty: no end.'),
    reasonField(),
  ], (values) => {
    const { json, words, submit, submitClass } = windowChange(product, values);
    return {
      words: [words, `Reason: ${values.reason}`],
      submit,
      submitClass,
      done: `The sale times of ${quoted(product)} are changed.`,
      path: `/api/admin/products/${product.id}/window`,
      json: { ...json, reason: values.reason },
    };
  });
}

// --- a new product ---
function readProduct({ name, description, price, stock, limit, starts, ends }) {
  const json = { name, price: parsePrice(price), stock: Number(stock) };
  if (description) json.description = description;
  if (limit) json.per_customer_limit = Number(limit);
  if (starts) json.starts_at = toServer(starts);
  if (ends) json.ends_at = toServer(ends);
  if (starts && ends && json.ends_at <= json.starts_at) throw new Error('The sale must end after it begins.');
  const opening = starts ? `on ${formatDate(json.starts_at)}` : 'at once';
  return {
    words: [`“${name}” goes on sale ${opening}: ${plural(json.stock, 'unit', 'units')} at ${formatPrice(json.price)}${limit ? `, at most ${formatCount(json.per_customer_limit)} a customer` : ''}. A product cannot be deleted.`],
    submit: 'Make the product',
    done: `“${name}” is made.`,
    path: '/api/products',
    json,
  };
}

function createProduct() {
  ask('New product', [
    field('Name', { name: 'name', required: true, maxlength: 200, autocomplete: 'off', autofocus: true }, 'The name is unique.'),
    field('Description', { name: 'description', maxlength: 1000, autocomplete: 'off' }),
    field('Price', { name: 'price', type: 'number', min: priceStep, step: priceStep, required: true }),
    field('Units', { name: 'stock', type: 'number', min: 0, max: UNITS_MAX, required: true }),
    field('At most how many a customer', { name: 'limit', type: 'number', min: 1, max: 1000000 }, 'Empty: no limit.'),
    field('Opens', { name: 'starts', type: 'datetime-local', step: 1 }, 'Empty: at once.'),
    field('Ends', { name: 'ends', type: 'datetime-local', step: 1 }, 'Empty: no end.'),
  ], readProduct);
}

byId('create-product').addEventListener('click', createProduct);

const hasStock = (product) => !product.bundle;
const always = () => true;
export const adminActions = [
  { label: 'Restock', run: restock, fits: hasStock },
  { label: 'Withdraw', run: withdraw, fits: hasStock },
  { label: 'Price', run: changePrice, fits: always },
  { label: 'Open or close', run: changeWindow, fits: always },
];
