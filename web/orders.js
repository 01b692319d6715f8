// My orders: a list with the newest first, each to be cancelled.

import { call, patiently, Problem } from './calls.js';
import { confirmDialog } from './dialogs.js';
import { announce, byId, formatCount, formatDate, formatPrice, h, setText } from './dom.js';
import { session } from './session.js';

const PAGE = 20;

const section = byId('orders');
const list = byId('orders-list');
const status = byId('orders-status');
const more = byId('orders-more');
let oldest = null;
let asked = 0; // only what was asked for last is shown: a second press, an answer that comes late
let nameOf = (productId) => `product ${productId}`;

const linesOf = (order) => order.items || [{ product_id: order.product_id, quantity: order.quantity }];
const describe = (order) => linesOf(order).map((line) => `${formatCount(line.quantity)} × ${nameOf(line.product_id)}`).join(', ');

async function cancel(order, say, signal) {
  try {
    say('Cancelling …', 'waiting');
    await patiently(() => call('DELETE', `/api/purchases/${order.id}`), () => say('The server is busy. Trying again by itself.', 'waiting'), signal);
    announce(`Order ${order.id} is cancelled.`);
    return true;
  } catch (error) {
    say(error instanceof Problem ? error.words : 'The server cannot be reached. Try again in a moment.');
    return false;
  }
}

async function askToCancel(order) {
  const done = await confirmDialog({
    title: `Cancel order ${order.id}?`,
    words: [`${describe(order)} go back on sale at once, and somebody else may buy them. This cannot be taken back.`],
    submit: 'Cancel the order',
    submitClass: 'danger',
    cancel: 'Keep it',
    onSubmit: (values, say, signal) => cancel(order, say, signal),
  });
  if (done) await showOrders();
}

function row(order) {
  const ended = order.cancelled_at;
  return h('li', { class: ended ? 'order cancelled' : 'order' },
    h('div', {},
      h('p', { class: 'order-title' }, h('strong', {}, `Order ${order.id}`), ' ', h('span', { class: ended ? 'tag' : 'tag good' }, ended ? 'cancelled' : 'bought')),
      h('p', {}, describe(order)),
      h('p', { class: 'hint' }, `${formatPrice(order.total_price)}, ${formatDate(order.purchased_at)}${ended ? `; cancelled ${formatDate(ended)}` : ''}`)),
    ended ? null : h('button', { type: 'button', class: 'quiet', 'aria-label': `Cancel order ${order.id}`, onclick: () => askToCancel(order) }, 'Cancel'));
}

async function load(before) {
  const owner = session.token;
  const mine = (asked += 1);
  try {
    const { body } = await call('GET', `/api/purchases/me?limit=${PAGE}${before ? `&before=${before}` : ''}`);
    if (owner !== session.token || mine !== asked) return;
    if (!before) list.replaceChildren();
    list.append(...body.map(row));
    oldest = body.length ? body[body.length - 1].id : oldest;
    more.hidden = body.length < PAGE;
    setText(status, list.children.length ? '' : 'No orders yet.');
  } catch (error) {
    if (mine !== asked) return;
    setText(status, error instanceof Problem ? error.words : 'Your orders cannot be read now. Try again in a moment.');
  }
}

export async function showOrders() {
  section.hidden = !session.token;
  if (session.token) await load(null);
  else list.replaceChildren();
}

export function startOrders(productName) {
  nameOf = productName;
  byId('orders-refresh').addEventListener('click', () => showOrders());
  more.addEventListener('click', () => load(oldest));
  let owner = null;
  const follow = () => {
    if (owner !== session.token) showOrders();
    owner = session.token;
  };
  session.addEventListener('change', follow);
  follow();
}
