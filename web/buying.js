// Buying, so that nobody buys twice and nobody is left in doubt.
//
// What the buyer means to buy is an intent with an Idempotency-Key of its own, kept in this tab until the server has answered for good. A lost
// connection, a 503, a reload: the same call goes out again with the same key, and the server answers with the first order if there is one.
//
//   intended --signed in--> sent --answered for good--> (gone)
//                           |  ^
//                           |  +-- no answer, 429, 503, still being recorded: again, same key
//                           +--stopped by the buyer, or by signing out--> stopped --Buy pressed again--> sent, same key
//
// It is the account's that sent it first, as the key is: nobody who signs in after it buys what somebody else meant to.
// One of each product at a time.

import { call, mayPass, newKey, patiently, Problem } from './calls.js';
import { formatCount, formatDate, formatPrice, h, plural } from './dom.js';
import { session } from './session.js';

const NAME = 'doorbuster.intents';

// By product id.
function readIntents() {
  try {
    return JSON.parse(sessionStorage.getItem(NAME)) || {};
  } catch {
    return {};
  }
}

function keep(intent) {
  sessionStorage.setItem(NAME, JSON.stringify({ ...readIntents(), [intent.productId]: intent }));
}

export function forget({ productId }) {
  const { [productId]: gone, ...others } = readIntents();
  sessionStorage.setItem(NAME, JSON.stringify(others));
}

const isOurs = (intent) => !session.token || intent.buyer === session.username;

// What the last visit to this page had sent and got no answer to.
export const pendingIntents = () => Object.values(readIntents()).filter((intent) => intent.buyer !== null && !intent.stopped && isOurs(intent));

// What was sent for this product and not answered, or null.
export function unanswered(productId) {
  const kept = readIntents()[productId];
  return kept && isOurs(kept) ? kept : null;
}

// The unanswered intent if it is the same, else a new one.
export function intend(productId, quantity) {
  const kept = unanswered(productId);
  return kept && kept.quantity === quantity ? kept : { key: newKey(), productId, quantity, buyer: null, stopped: false };
}

// --- what the buyer is told: { kind, title, text } ---
const ordersLink = () => h('a', { href: '#orders' }, 'See my orders');

function bought(answer) {
  const again = answer.replayed ? 'Your first try had come through; nothing was bought twice. ' : '';
  return {
    kind: 'good',
    title: `Bought! Order ${answer.body.id}`,
    text: [`${again}${plural(answer.body.quantity, 'unit', 'units')} for ${formatPrice(answer.body.total_price)}, written down for good. `, ordersLink()],
  };
}

function soldOut({ body }) {
  return body.available > 0
    ? { kind: 'bad', title: `Only ${formatCount(body.available)} left`, text: [`You asked for ${formatCount(body.requested)}. Nothing was bought; choose fewer and try again.`] }
    : { kind: 'bad', title: 'Sold out', text: ['Somebody was faster: nothing is left, and nothing was bought. If units come back, this page shows it at once.'] };
}

function overLimit({ body }) {
  return {
    kind: 'bad',
    title: 'Limit reached',
    text: [`At most ${formatCount(body.limit)} a customer, and you have ${formatCount(body.owned)}. Nothing more was bought. `, ordersLink()],
  };
}

const refusals = {
  'insufficient-stock': soldOut,
  'customer-limit': overLimit,
  'sale-not-open': ({ body }) => ({ kind: 'wait', title: 'Not open yet', text: [`The sale opens on ${formatDate(body.starts_at)}. Nothing was bought.`] }),
  'sale-over': ({ body }) => ({ kind: 'bad', title: 'The sale is over', text: [`It ended on ${formatDate(body.ends_at)}. Nothing was bought.`] }),
  'not-found': () => ({ kind: 'bad', title: 'Not on sale any more', text: ['Nothing was bought.'] }),
  'order-rejected': () => ({ kind: 'bad', title: 'Not bought', text: ['The reservation could not be kept. Nothing was bought or charged; you can try again.'] }),
};

function refused(problem) {
  const words = refusals[problem.slug];
  return words ? words(problem) : { kind: 'bad', title: 'Not bought', text: [problem.words] };
}

function leftInDoubt() {
  return {
    kind: 'wait',
    title: 'Not answered yet',
    text: ['We stopped trying. Whether it was bought is not known: press Buy once more, which can never buy twice, or look at your orders. ', ordersLink()],
  };
}

// The buyer goes away from it. What to tell.
export function leave(intent) {
  if (intent.buyer === null) return { kind: 'wait', title: 'Not sent', text: 'You have not signed in.' };
  keep({ ...intent, stopped: true });
  return leftInDoubt();
}

function waiting(error) {
  if (error instanceof Problem && error.slug === 'sale-not-open') return { title: 'Opening this moment', text: 'Your order goes out again by itself. Next try' };
  if (error instanceof Problem && error.slug === 'request-in-progress') return { title: 'Reserved for you', text: 'It is being written down. Looking again' };
  if (error instanceof Problem && error.status === 429) return { title: 'Too many at once', text: 'The server asks for a moment. Trying again by itself' };
  return { title: 'Connection in doubt', text: 'No answer came. The same order goes out again by itself; it cannot be made twice. Next try' };
}

class AccountChanged extends Error {}

// Sends the intent until it is answered. Answers what to tell the buyer, or null if the buyer has to sign in (again) first.
export async function carryOut(intent, tell, signal) {
  if (!session.token) return null;
  if (intent.buyer !== null && intent.buyer !== session.username) intent.key = newKey(); // keys are an account's
  intent.buyer = session.username;
  intent.stopped = false;
  keep(intent);
  const attempt = async () => {
    if (session.username !== intent.buyer) throw new AccountChanged();
    return call('POST', '/api/purchases', { json: { product_id: intent.productId, quantity: intent.quantity }, key: intent.key });
  };
  try {
    const answer = await patiently(attempt, (error, seconds) => tell({ kind: 'wait', seconds, ...waiting(error) }), signal);
    forget(intent);
    return bought(answer);
  } catch (error) {
    if (error instanceof Problem && error.status === 401) return null;
    if (mayPass(error) || error instanceof AccountChanged) return leave(intent); // it was stopped
    forget(intent);
    return refused(error);
  }
}
