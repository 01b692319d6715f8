// The sale, live: what the figures say, drawn twice a second, and what an admin may do.

import { learnRole, showAccount } from './account.js';
import { offerProducts, showAudit } from './audit.js';
import { LineChart } from './chart.js';
import { byId, formatCount, formatMilliseconds, formatRate, formatSeconds, formatTime, h, plural, setAttribute, setText } from './dom.js';
import { watchFigures } from './figures.js';
import { session } from './session.js';
import { productName, showStock } from './stock_cards.js';
import { findTroubles, judgeBooks, recorderIsSilent, standsBy } from './troubles.js';

const TITLE = document.title;
const LOOK_MS = 500;
const PAST_MS = 10000;

let latest = null;

const ratesChart = new LineChart(byId('rates-chart'), 'Sales and refusals a second, last minutes', ['confirmed', 'refused']);

// What the server remembers from before this page was opened. Without it the plot begins now.
async function showPast() {
  try {
    const response = await fetch('/api/figures', { cache: 'no-store', signal: AbortSignal.timeout(PAST_MS) });
    const { history = [] } = response.ok ? await response.json() : {};
    ratesChart.addPast(history.map(({ at, confirmed, refused }) => [Date.parse(at), confirmed, refused]));
  } catch {
    // No answer is said elsewhere.
  }
}

function showRecorder(figures) {
  const { recorder, at } = figures;
  const silent = recorderIsSilent(figures);
  const known = recorder.silent_seconds !== null;
  const since = known ? `since ${formatTime(Date.parse(at) - 1000 * recorder.silent_seconds)}` : 'not heard yet';
  setText(byId('recorder-name'), recorder.name === 'recorder' ? 'Recorder' : 'Keeper');
  setText(byId('lag'), !silent ? formatSeconds(recorder.lag_seconds) : known ? formatSeconds(Math.floor(recorder.silent_seconds)) : '–');
  setText(byId('lag-of'), silent ? ' silent' : ' behind');
  setText(byId('recorder-detail'), silent ? since : standsBy(recorder) ? 'standing by: another server records'
    : `${plural(recorder.lag_entries, 'entry', 'entries')}, epoch ${recorder.epoch}`);
  setAttribute(byId('tile-recorder'), 'class', `tile ${silent ? 'old' : ''}`);
}

function showTiles({ rates, totals, latency_ms: latency, at }) {
  setText(byId('rate-confirmed'), formatRate(rates.confirmed));
  setText(byId('total-confirmed'), formatCount(totals.confirmed));
  setText(byId('rate-refused'), formatRate(rates.refused));
  setText(byId('total-refused'), formatCount(totals.sold_out + totals.over_limit + totals.closed));
  setText(byId('rate-requests'), formatRate(rates.requests));
  setText(byId('total-unavailable'), formatCount(totals.unavailable));
  setText(byId('p50'), formatMilliseconds(latency.p50));
  setText(byId('p99'), formatMilliseconds(latency.p99));
  ratesChart.add(Date.parse(at), [rates.confirmed, rates.refused]);
}

const booksWords = { unknown: '–', old: 'Old', equal: 'Equal', differ: 'DIFFER' };

function showBooks(figures) {
  const { books, totals } = figures;
  const state = judgeBooks(figures);
  const at = books.compared_at && formatTime(books.compared_at);
  const details = {
    unknown: 'not compared yet',
    old: `not compared since ${at}`,
    equal: `at ${at}`,
    differ: `${plural(books.differences, 'product', 'products')}, at ${at}`,
  };
  const healed = totals.healed && state !== 'unknown' ? `, ${formatCount(totals.healed)} healed` : '';
  setText(byId('books-state'), booksWords[state]);
  setText(byId('books-detail'), details[state] + healed);
  setAttribute(byId('tile-books'), 'class', `tile books ${state}`);
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
  const old = state !== 'silent' && latest !== null && recorderIsSilent(latest);
  setText(byId('link-text'), old ? `${linkWords[state]}, stock is old` : linkWords[state]);
  setAttribute(byId('link-state'), 'class', `pill ${old ? 'old' : state}`);
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
  showRecorder(figures);
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

showPast();
const watcher = watchFigures(show);
session.addEventListener('change', followSession);
showAccount(byId('account'), { forAdmins: true });
followSession();
learnRole();
setInterval(showLink, LOOK_MS);
