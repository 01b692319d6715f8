// The sale, live: what the figures say, drawn twice a second, and what an admin may do.

import { learnRole, showAccount } from './account.js';
import { offerProducts, showAudit } from './audit.js';
import { LineChart } from './chart.js';
import { byId, formatCount, formatMilliseconds, formatRate, formatSeconds, formatTime, h, plural, setAttribute, setText } from './dom.js';
import { serverClock, watchFigures } from './figures.js';
import { session } from './session.js';
import { productName, showStock } from './stock_cards.js';
import { findTroubles } from './troubles.js';

const TITLE = document.title;
const LOOK_MS = 500;
const COMPARED_MS = 30000; // what was found out longer ago says nothing of now

let latest = null;

const ratesChart = new LineChart(byId('rates-chart'), 'Sales and refusals a second, last minutes', ['confirmed', 'refused']);

function showTiles({ rates, totals, latency_ms: latency, recorder, at }) {
  setText(byId('rate-confirmed'), formatRate(rates.confirmed));
  setText(byId('total-confirmed'), formatCount(totals.confirmed));
  setText(byId('rate-refused'), formatRate(rates.refused));
  setText(byId('total-refused'), formatCount(totals.sold_out + totals.over_limit + totals.closed));
  setText(byId('rate-requests'), formatRate(rates.requests));
  setText(byId('total-unavailable'), formatCount(totals.unavailable));
  setText(byId('p50'), formatMilliseconds(latency.p50));
  setText(byId('p99'), formatMilliseconds(latency.p99));
  setText(byId('recorder-name'), recorder.name === 'recorder' ? 'Recorder' : 'Keeper');
  setText(byId('lag'), formatSeconds(recorder.lag_seconds));
  setText(byId('recorder-detail'), recorder.up ? `${plural(recorder.lag_entries, 'entry', 'entries')}, epoch ${recorder.epoch}` : 'not up');
  ratesChart.add(Date.parse(at), [rates.confirmed, rates.refused]);
}

function showBooks({ books, totals }) {
  const known = Boolean(books.compared_at) && serverClock.now - Date.parse(books.compared_at) < COMPARED_MS;
  const words = !known ? 'Not known' : books.equal ? 'Equal' : 'DIFFER';
  setText(byId('books-state'), words);
  const healed = totals.healed ? `, ${formatCount(totals.healed)} healed` : '';
  setText(byId('books-detail'), known ? `${books.equal ? '' : `${plural(books.differences, 'product', 'products')}, `}at ${formatTime(books.compared_at)}${healed}`
    : books.compared_at ? `last compared at ${formatTime(books.compared_at)}` : 'not compared yet');
  setAttribute(byId('tile-books'), 'class', `tile books ${!known ? '' : books.equal ? 'equal' : 'differ'}`);
}

// Rows by key: only what is new is made anew, so that a screen reader's place, a selection or a scroll stays.
function showRows(place, items, keyOf, make) {
  const kept = new Map([...place.children].map((row) => [row.dataset.key, row]));
  const rows = items.map((item) => {
    const key = keyOf(item);
    if (kept.has(key)) return kept.get(key);
    const row = make(item);
    row.dataset.key = key;
    return row;
  });
  if (rows.length === place.children.length && rows.every((row, i) => row === place.children[i])) return;
  place.replaceChildren(...rows);
}

function orderWhat({ lines, line_count: count }) {
  const shown = lines.map((line) => `${formatCount(line.quantity)} × ${productName(line.product_id)}`).join(', ');
  return count > lines.length ? `${shown} and ${count - lines.length} more` : shown;
}

function showOrders({ orders }) {
  showRows(byId('orders-rows'), orders, (order) => `${order.id} ${order.state}`, (order) => h('tr', {},
    h('td', {}, String(order.id)),
    h('td', {}, orderWhat(order), order.state === 'confirmed' ? null : h('span', { class: `tag ${order.state === 'rejected' ? 'bad' : ''}` }, order.state)),
    h('td', { class: 'nowrap' }, formatTime(order.at))));
}

function processTag({ up, pid }) {
  const [kind, text] = up ? ['good', 'up'] : pid ? ['wait', 'starting'] : ['bad', 'DOWN'];
  return h('span', { class: `tag ${kind}` }, text);
}

function showProcesses({ processes, breakers }) {
  showRows(byId('processes-rows'), processes, (process) => [process.name, process.pid, process.up, process.restarts].join(' '), (process) => h('tr', {},
    h('td', {}, process.name),
    h('td', {}, processTag(process)),
    h('td', {}, formatCount(process.restarts)),
    h('td', { class: 'nowrap' }, process.started_at ? formatTime(process.started_at) : '–')));
  const kinds = { closed: 'good', open: 'bad' };
  showRows(byId('breakers'), breakers, ({ name, state }) => `${name} ${state}`, ({ name, state }) => h('li', { class: `tag ${kinds[state] || 'wait'}` }, `${name}: ${state}`));
}

// --- is anything wrong? ---
const linkWords = { connecting: 'Connecting', live: 'Live', polling: 'Every 2 s', silent: 'No news' };

function showLink() {
  const { state } = watcher;
  setText(byId('link-text'), linkWords[state]);
  setAttribute(byId('link-state'), 'class', `pill ${state}`);
  const troubles = findTroubles(latest, state, Math.floor(watcher.silentSeconds));
  const banner = byId('banner');
  setAttribute(banner, 'class', troubles.every((trouble) => trouble.minor) ? 'banner minor' : 'banner');
  showRows(banner, troubles, ({ title, text }) => title + text, ({ title, text }) => h('p', {}, h('strong', {}, title), text));
  const worst = troubles.find((trouble) => !trouble.minor);
  if (document.title !== (worst ? `⚠ ${worst.title}` : TITLE)) document.title = worst ? `⚠ ${worst.title}` : TITLE;
}

function show(figures) {
  latest = figures;
  setText(byId('server-line'), `Doorbuster ${figures.version}, ${figures.gate} gate, up for ${formatSeconds(Math.floor(figures.uptime_seconds))}, ${plural(figures.orders_total, 'order', 'orders')}`);
  showTiles(figures);
  showBooks(figures);
  showStock(figures);
  showOrders(figures);
  showProcesses(figures);
  offerProducts(figures.products);
  showLink();
}

function followSession() {
  for (const element of document.querySelectorAll('.admin-only')) element.hidden = !session.mayAdminister;
  if (latest) showStock(latest);
  showAudit();
}

const watcher = watchFigures(show);
session.addEventListener('change', followSession);
showAccount(byId('account'), { forAdmins: true });
followSession();
learnRole();
setInterval(showLink, LOOK_MS);
