// The audit log on the dashboard: every change of a book, the newest first.

import { onChanged } from './admin.js';
import { call, Problem } from './calls.js';
import { byId, formatCount, formatDate, formatPrice, h, setText } from './dom.js';
import { session } from './session.js';
import { productName } from './stock_cards.js';

const PAGE = 50;

const rows = byId('audit-rows');
const status = byId('audit-status');
const more = byId('audit-more');
const chosen = byId('audit-product');
let oldest = null;
let asked = 0; // only what was asked for last is shown: a second press, another product chosen meanwhile

const signed = (value, format) => (value > 0 ? `+${format(value)}` : format(value));
const timeOrNone = (at) => (at ? formatDate(at) : 'none');

// Units, prices or times, by what was changed. A bundle's stock goes from nothing to nothing.
function figuresOf({ cause, delta, from, to, from_time: fromTime, to_time: toTime }) {
  if (fromTime !== undefined) return ['', timeOrNone(fromTime), timeOrNone(toTime)];
  const format = cause === 'price' ? formatPrice : formatCount;
  return [delta ? signed(delta, format) : '', ...(from === null ? ['', ''] : [format(from), format(to)])];
}

function row(entry) {
  const [change, from, to] = figuresOf(entry);
  return h('tr', {},
    h('td', {}, String(entry.seq)),
    h('td', {}, formatDate(entry.at)),
    h('td', {}, productName(entry.product_id)),
    h('td', { class: 'nowrap' }, entry.applied ? entry.cause : `${entry.cause}, not applied`),
    h('td', { class: 'nowrap' }, change),
    h('td', {}, from === '' ? '' : `${from} → ${to}`),
    h('td', { class: 'nowrap' }, entry.actor === null ? 'the server' : `account ${entry.actor}`),
    h('td', {}, entry.reason || ''));
}

async function load(before) {
  const asker = session.token;
  const mine = (asked += 1);
  const query = new URLSearchParams({ limit: PAGE });
  if (before) query.set('before', before);
  if (chosen.value) query.set('product_id', chosen.value);
  try {
    const { body } = await call('GET', `/api/admin/audit?${query}`);
    if (asker !== session.token || mine !== asked) return;
    if (!before) rows.replaceChildren();
    rows.append(...body.map(row));
    oldest = body.length ? body.at(-1).seq : oldest;
    more.hidden = body.length < PAGE;
    setText(status, rows.children.length ? '' : 'No changes yet.');
  } catch (error) {
    if (mine !== asked) return;
    setText(status, error instanceof Problem ? error.words : 'The audit log cannot be read now. Try again in a moment.');
  }
}

// The products to choose from; what is chosen stays.
export function offerProducts(products) {
  if (chosen.options.length === products.length + 1) return;
  const { value } = chosen;
  chosen.replaceChildren(h('option', { value: '' }, 'all'), ...products.map((product) => h('option', { value: product.id }, product.name)));
  chosen.value = value;
}

export function showAudit() {
  if (session.mayAdminister) load(null);
  else rows.replaceChildren();
}

byId('audit-refresh').addEventListener('click', () => load(null));
more.addEventListener('click', () => load(oldest));
chosen.addEventListener('change', () => load(null));
onChanged(() => load(null));
