// The products on the dashboard: what is left of each, as a bar, a line and figures, and what an admin may do with it.

import { adminActions } from './admin.js';
import { LineChart } from './chart.js';
import { byId, formatCount, formatDate, formatPrice, h, plural, setAttribute, setText } from './dom.js';
import { serverClock } from './figures.js';
import { session } from './session.js';
import { judgeBooks } from './troubles.js';

const LINES_MAX = 24; // more products: bars and figures alone
const LOW_SHARE = 0.2;

function windowWords(product) {
  const { now } = serverClock;
  if (!product.opened) return ['not opened', 'wait'];
  if (product.starts_at && now < Date.parse(product.starts_at)) return [`opens ${formatDate(product.starts_at)}`, 'upcoming'];
  if (product.ends_at && now >= Date.parse(product.ends_at)) return ['closed', 'bad'];
  if ((product.available ?? product.stock) <= 0) return ['sold out', 'soldout'];
  return [product.ends_at ? `open until ${formatDate(product.ends_at)}` : 'open', 'open'];
}

class StockCard {
  constructor(product, hasLine) {
    this.product = product;
    const id = `product-${product.id}`;
    this.name = h('h3', { id });
    this.tag = h('span', { class: 'tag' });
    this.left = h('span');
    this.capacity = h('small');
    this.fill = h('div', { class: 'fill' });
    this.meter = h('div', { class: 'meter', role: 'meter', 'aria-label': 'Units left', 'aria-valuemin': 0 }, this.fill);
    this.facts = new Map();
    const facts = h('dl', { class: 'facts' });
    for (const name of ['sold', 'in flight', 'restocked', 'cancelled', 'price', 'books']) {
      this.facts.set(name, h('dd'));
      facts.append(h('div', {}, h('dt', {}, name), this.facts.get(name)));
    }
    const place = h('div', { class: 'chart' });
    this.chart = hasLine ? new LineChart(place, `Units of ${product.name} left, last minutes`, ['stock'], { filled: true }) : null;
    this.actions = h('div', { class: 'admin-row', role: 'group', 'aria-labelledby': id },
      ...adminActions.filter(({ fits }) => fits(product)).map(({ label, run }) => h('button', { type: 'button', class: 'quiet', onclick: () => run(this.product) }, label)));
    this.element = h('article', { class: 'stock-card', 'aria-labelledby': id, 'data-product': product.id },
      h('div', { class: 'stock-head' }, this.name, this.tag),
      h('p', { class: 'stock-left' }, this.left, ' ', this.capacity), this.meter, hasLine ? place : null, facts, this.actions);
  }

  // books: what judgeBooks says of all of them.
  show(product, at, books) {
    this.product = product;
    setText(this.name, product.name);
    const [words, kind] = windowWords(product);
    setText(this.tag, words);
    setAttribute(this.tag, 'class', `tag ${kind}`);
    this.#showStock(product, at);
    const facts = {
      sold: formatCount(product.sold),
      'in flight': formatCount(product.in_flight),
      restocked: formatCount(product.restocked),
      cancelled: formatCount(product.cancelled),
      price: formatPrice(product.price),
      books: !product.books_equal ? 'DIFFER' : books === 'old' || books === 'unknown' ? 'not known' : 'equal',
    };
    for (const [name, text] of Object.entries(facts)) setText(this.facts.get(name), text);
    this.element.classList.toggle('differs', !product.books_equal);
    this.actions.hidden = !session.mayAdminister;
  }

  #showStock(product, at) {
    const units = Math.max(0, product.available ?? product.stock);
    const capacity = product.bundle ? units : Math.max(units, product.opening + product.restocked);
    setText(this.left, formatCount(units));
    setText(this.capacity, product.bundle ? 'left, by its components' : `of ${formatCount(capacity)} left`);
    setAttribute(this.meter, 'aria-valuemax', Math.max(capacity, 1));
    setAttribute(this.meter, 'aria-valuenow', units);
    setAttribute(this.meter, 'aria-valuetext', `${this.left.textContent} ${this.capacity.textContent}`);
    this.meter.classList.toggle('gone', product.bundle);
    const share = capacity > 0 ? units / capacity : 0;
    this.fill.style.transform = `scaleX(${share})`;
    this.fill.classList.toggle('low', share <= LOW_SHARE);
    if (this.chart) this.chart.add(at, [units], product.bundle ? null : Math.max(capacity, 1));
  }
}

const grid = byId('products');
const cards = new Map();

export function showStock(figures) {
  const shown = new Set(figures.products.map((product) => product.id));
  for (const [id, card] of cards) {
    if (!shown.has(id)) {
      card.element.remove();
      cards.delete(id);
    }
  }
  const at = Date.parse(figures.at);
  const books = judgeBooks(figures);
  for (const product of figures.products) {
    if (!cards.has(product.id)) {
      cards.set(product.id, new StockCard(product, figures.products.length <= LINES_MAX));
      grid.append(cards.get(product.id).element);
    }
    cards.get(product.id).show(product, at, books);
  }
  setAttribute(grid, 'aria-busy', null);
  const more = byId('products-more');
  more.hidden = figures.products.length > 0 && figures.products_total <= figures.products.length;
  setText(more, figures.products.length === 0 ? 'There are no products yet. An admin can make one here, or doorbuster-setup does.'
    : `The newest ${formatCount(figures.products.length)} of ${plural(figures.products_total, 'product', 'products')}.`);
}

export const productName = (id) => (cards.has(id) ? cards.get(id).product.name : `product ${id}`);
