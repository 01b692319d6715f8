// The shop window: what is on sale, when it opens, what is left, and a button to buy it.

import { showAccount, signIn } from './account.js';
import { carryOut, intend, leave, pendingIntents, unanswered } from './buying.js';
import { announce, byId, formatCount, formatCountdown, formatDate, formatPrice, h, setAttribute, setText } from './dom.js';
import { serverClock, watchFigures } from './figures.js';
import { showOrders, startOrders } from './orders.js';
import { session } from './session.js';

const QUANTITY_MAX = 1000;
const LOW_SHARE = 0.2;
const TICK_MS = 200;
const NO_NEWS_SECONDS = 3;
const DOUBLE_PRESS_MS = 700; // after an order: the second press of a double click is no second order

const grid = byId('products');
const notice = byId('notice');
const LOADING = notice.textContent; // as the page comes
const NO_NEWS = 'The shop does not answer yet. This page goes on asking, and shows the products as soon as it does.';
const NOTHING = 'Nothing is on sale yet. This page shows it by itself once something is.';
const cards = new Map(); // by product id

// --- one product ---
// 'upcoming', 'over', 'soldout' or 'open', by the server's clock.
function stateOf(product) {
  const { now } = serverClock;
  if (product.starts_at && now < Date.parse(product.starts_at)) return 'upcoming';
  if (product.ends_at && now >= Date.parse(product.ends_at)) return 'over';
  return left(product) > 0 ? 'open' : 'soldout';
}

const left = (product) => product.available ?? product.stock;
const capacityOf = (product) => (product.bundle ? 0 : product.opening + product.restocked);

const labels = {
  upcoming: ['Opens soon', 'Not open yet'],
  over: ['Sale over', 'Sale over'],
  soldout: ['Sold out', 'Sold out'],
  open: ['On sale', 'Buy'],
};

class Card {
  #product;
  #state = null;
  #saidSeconds = Infinity;
  #buying = null; // the AbortController of a purchase under way
  #restsUntil = 0;

  constructor(product) {
    const id = product.id;
    this.name = h('h2', { id: `name-${id}` });
    this.tag = h('span', { class: 'tag' });
    this.price = h('p', { class: 'price' });
    this.clock = h('p', { class: 'clock', role: 'timer', 'aria-live': 'off' });
    this.stock = h('span', { class: 'stock' });
    this.fill = h('div', { class: 'fill' });
    this.meter = h('div', { class: 'meter', role: 'meter', 'aria-label': 'Units left', 'aria-valuemin': 0 }, this.fill);
    this.quantity = h('input', { type: 'number', id: `quantity-${id}`, name: 'quantity', min: 1, value: 1, inputmode: 'numeric', required: true });
    this.quantityField = h('div', { class: 'field quantity' }, h('label', { for: `quantity-${id}` }, 'How many'), this.quantity);
    this.button = h('button', { type: 'submit', class: 'primary buy' }, 'Buy');
    this.limit = h('p', { class: 'hint limit' });
    this.outcome = h('div', { class: 'outcome', role: 'status', 'aria-live': 'assertive', 'aria-atomic': 'true' });
    this.stop = h('button', { type: 'button', class: 'quiet stop', onclick: () => this.#buying.abort() }, 'Stop trying');
    this.stop.hidden = true;
    this.form = h('form', { class: 'buy-form', novalidate: true }, this.quantityField, this.button);
    this.form.addEventListener('submit', (event) => { event.preventDefault(); this.#press(); });
    this.element = h('article', { class: 'product', 'aria-labelledby': `name-${id}`, 'data-product': id },
      h('div', { class: 'product-head' }, this.name, this.tag), this.price, this.clock,
      h('div', { class: 'stock-line' }, this.stock, this.meter),
      this.form, this.limit, h('div', { class: 'outcome-place' }, this.outcome, this.stop,
        h('p', { class: 'promise' }, 'One press, one order: if the connection breaks or the page is loaded again, your order goes on, and is never made twice.')));
    this.show(product);
  }

  show(product) {
    this.#product = product;
    setText(this.name, product.name);
    setText(this.price, formatPrice(product.price));
    const limit = Math.min(product.per_customer_limit ?? QUANTITY_MAX, QUANTITY_MAX);
    setAttribute(this.quantity, 'max', limit);
    this.quantityField.hidden = limit === 1;
    setText(this.limit, product.per_customer_limit ? `At most ${formatCount(product.per_customer_limit)} a customer` : '\u00a0');
    this.#showStock(product);
    this.tick();
  }

  #showStock(product) {
    const units = Math.max(0, left(product));
    const capacity = Math.max(capacityOf(product), units);
    setText(this.stock, product.bundle ? `${formatCount(units)} left` : `${formatCount(units)} of ${formatCount(capacity)} left`);
    this.meter.classList.toggle('gone', product.bundle);
    setAttribute(this.meter, 'aria-valuemax', Math.max(capacity, 1));
    setAttribute(this.meter, 'aria-valuenow', units);
    setAttribute(this.meter, 'aria-valuetext', this.stock.textContent);
    const share = capacity > 0 ? units / capacity : 0;
    this.fill.style.transform = `scaleX(${share})`;
    this.fill.classList.toggle('low', share <= LOW_SHARE);
  }

  // Several times a second: the countdown, and whether the sale has opened or ended meanwhile.
  tick() {
    const state = stateOf(this.#product);
    if (state !== this.#state) this.#enter(state);
    this.#showButton();
    if (state === 'upcoming') this.#countDown();
    else this.#showWhen(this.#product);
  }

  #enter(state) {
    if (this.#state !== null) announce(`${this.#product.name}: ${labels[state][0].toLowerCase()}.`);
    this.#state = state;
    this.element.dataset.state = state;
    if (this.outcome.dataset.until) this.#clearOutcome();
    setText(this.tag, labels[state][0]);
    this.tag.className = `tag ${state}`;
  }

  #showWhen({ ends_at: endsAt }) {
    const words = {
      open: endsAt ? `Until ${formatDate(endsAt)}, or sold out` : 'While stocks last',
      soldout: 'Units come back if somebody cancels',
      over: endsAt ? `Ended on ${formatDate(endsAt)}` : '\u00a0',
    };
    if (words[this.#state]) setText(this.clock, words[this.#state]);
  }

  #countDown() {
    const leftMs = Date.parse(this.#product.starts_at) - serverClock.now;
    setText(this.clock, `Opens in ${formatCountdown(leftMs)}`);
    const seconds = Math.ceil(leftMs / 1000);
    for (const mark of [60, 10]) {
      if (seconds <= mark && this.#saidSeconds > mark && seconds > mark - 5) announce(`${this.#product.name} opens in ${mark} seconds.`);
    }
    this.#saidSeconds = seconds;
  }

  get #isBusy() { return this.#buying || performance.now() < this.#restsUntil; }

  // Never `disabled`: the focus would be lost, and nobody told why.
  #showButton() {
    const canBuy = this.#state === 'open' && !this.#isBusy;
    setAttribute(this.button, 'aria-disabled', canBuy ? null : 'true');
    setText(this.button, this.#buying ? 'Buying …' : labels[this.#state][1]);
  }

  // "Not open yet" is true only until it opens.
  #clearOutcome() {
    this.outcome.replaceChildren();
    this.outcome.className = 'outcome';
    delete this.outcome.dataset.until;
    delete this.outcome.dataset.said;
  }

  tell({ kind, title, text, seconds }) {
    delete this.outcome.dataset.until;
    const said = `${kind} ${title}`;
    if (kind !== 'wait' || seconds === undefined || this.outcome.dataset.said !== said) {
      const body = h('p', {}, ...[text].flat());
      // The seconds are for the eye: a screen reader would say each.
      if (seconds !== undefined) body.append(h('span', { class: 'seconds', 'aria-hidden': 'true' }), '.');
      this.outcome.replaceChildren(h('p', { class: 'outcome-title' }, title), body);
      this.outcome.className = `outcome ${kind}`;
      this.outcome.dataset.said = said;
    }
    if (seconds !== undefined) setText(this.outcome.querySelector('.seconds'), ` in ${seconds} s`);
    this.stop.hidden = seconds === undefined;
  }

  #press() {
    if (this.#isBusy) return;
    const sent = unanswered(this.#product.id);
    if (this.#state !== 'open' && sent) { // it may have got the last one
      this.buy(sent);
      return;
    }
    if (this.#state !== 'open') {
      const words = { upcoming: `Not before the countdown is at zero.`, over: 'It is too late for this one.', soldout: 'If units come back, this page shows it at once.' };
      this.tell({ kind: this.#state === 'upcoming' ? 'wait' : 'bad', title: labels[this.#state][1], text: words[this.#state] });
      this.outcome.dataset.until = 'change';
      return;
    }
    if (!this.quantity.checkValidity()) {
      this.tell({ kind: 'bad', title: 'How many?', text: `A whole number from 1 to ${formatCount(Number(this.quantity.max))}.` });
      this.quantity.focus();
      return;
    }
    this.buy(intend(this.#product.id, Number(this.quantity.value)));
  }

  async buy(intent) {
    this.#buying = new AbortController();
    this.#showButton();
    try {
      let told = null;
      do {
        if (!session.token && !(await this.#askWho(intent))) return;
        this.tell({ kind: 'wait', title: 'Buying …', text: 'Hold on, this takes a moment.' });
        told = await carryOut(intent, (words) => this.tell(words), this.#buying.signal);
      } while (told === null);
      this.tell(told);
      if (told.kind === 'good') this.#restsUntil = performance.now() + DOUBLE_PRESS_MS;
      showOrders();
    } finally {
      this.#buying = null;
      this.#showButton();
    }
  }

  async #askWho(intent) {
    const signedIn = await signIn({ why: `To buy ${this.#product.name}, tell us who you are. The purchase goes on by itself.` });
    if (!signedIn) this.tell(leave(intent));
    return signedIn;
  }
}

// --- all of them ---
const productName = (id) => (cards.has(id) ? cards.get(id).name.textContent : `product ${id}`);

function showProducts(figures) {
  const products = figures.products.filter((product) => product.opened);
  const shown = new Set(products.map((product) => product.id));
  for (const [id, card] of cards) {
    if (!shown.has(id)) {
      card.element.remove();
      cards.delete(id);
    }
  }
  for (const product of products) {
    if (cards.has(product.id)) cards.get(product.id).show(product);
    else cards.set(product.id, new Card(product));
    const { element } = cards.get(product.id);
    if (!element.isConnected) grid.append(element);
  }
  grid.classList.toggle('single', products.length === 1);
  setAttribute(grid, 'aria-busy', null);
  byId('more').hidden = figures.products_total <= figures.products.length;
  setText(byId('more'), `The newest ${formatCount(figures.products.length)} of ${formatCount(figures.products_total)} products are shown.`);
  if (products.length === 0) setText(notice, NOTHING);
  else if ([LOADING, NOTHING, NO_NEWS].includes(notice.textContent)) setText(notice, '');
}

// What a reload or a closed lid left unanswered goes on, with the same key.
let resumed = false;
function resume() {
  if (resumed) return;
  resumed = true;
  for (const intent of pendingIntents()) {
    if (cards.has(intent.productId)) {
      cards.get(intent.productId).buy(intent);
    } else {
      const tell = ({ title }) => setText(notice, `Product ${intent.productId}: ${title}`);
      carryOut(intent, tell, new AbortController().signal).then((told) => told && tell(told));
    }
  }
}

const watcher = watchFigures((figures) => {
  showProducts(figures);
  resume();
});

function showLink() {
  const words = {
    connecting: 'Connecting …',
    live: '',
    polling: 'Figures every few seconds.',
    silent: 'No news from the shop: the figures may be old. Buying still works as soon as it answers.',
  };
  if (!watcher.everHeard && watcher.silentSeconds > NO_NEWS_SECONDS) setText(notice, NO_NEWS);
  setText(byId('link-state'), words[watcher.state]);
  byId('link-state').className = watcher.state === 'silent' ? 'hint stale' : 'hint';
}

showAccount(byId('account'), { links: [h('a', { href: '#orders' }, 'My orders')] });
startOrders(productName);
setInterval(() => {
  cards.forEach((card) => card.tick());
  showLink();
}, TICK_MS);
