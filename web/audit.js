// The audit log on the dashboard: every change of a book, the newest first.

import { onChanged } from './admin.js';
import { call, Problem } from './calls.js';
import { byId, formatCount, formatDate, h, setText } from './dom.js';
import { session } from './session.js';
import { productName } from './stock_cards.js';

const PAGE = 50;

const rows = byId('audit-rows');
const status = byId('audit-status');
const more = byId('audit-more');
const chosen = byId('audit-product');
let oldest = null;

const signed = (value) => (value > 0 ? `+${formatCount(value)}` : formatCount(value));

function row(entry) {
  const fromTo = entry.from === null || entry.from === undefined ? '' : `${formatCount(entry.from)} → ${formatCount(entry.to)}`;
  return h('tr', {},
    h('td', {}, String(entry.seq)),
    h('td', {}, formatDate(entry.at)),
    h('td', {}, productName(entry.product_id)),
    h('td', {}, entry.applied ? entry.cause : `${entry.cause}, not applied`),
    h('td', { class: 'nowrap' }, entry.delta ? signed(entry.delta) : ''),
    h('td', { class: 'nowrap' }, fromTo),
    h('td', {}, entry.actor === null ? 'the server' : `account ${entry.actor}`),
    h('td', {}, entry.reason || ''));
}

async function load(before) {
  const asker = session.token;
  const query = new URLSearchParams({ limit: PAGE });
  if (before) query.set('before', before);
  if (chosen.value) query.set('product_id', chosen.value);
  try {
    const { body } = await call('GET', `/api/admin/audit?${query}`);
    if (asker !== session.token) return;
    if (!before) rows.replaceChildren();
    rows.append(...body.map(row));
    oldest = body.length ? body.at(-1).seq : oldest;
    more.hidden = body.length < PAGE;
    setText(status, rows.children.length ? '' : 'No changes yet.');
  } catch (error) {
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
