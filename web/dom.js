// Elements and words. Everything that comes from outside becomes text, never markup.

export const byId = (id) => document.getElementById(id);

export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, '');
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// Leaves alone what is right already: no needless layout, and screen readers hear nothing twice.
export function setText(element, text) {
  if (element.textContent !== String(text)) element.textContent = text;
}

export function setAttribute(element, name, value) {
  if (value === null || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

// Said to screen readers, shown nowhere.
export function announce(text) {
  setText(byId('announcer'), text);
}

// --- figures as words ---
const currency = document.querySelector('meta[name=currency]').content;
const money = new Intl.NumberFormat(undefined, { style: 'currency', currency });
const smallestUnits = 10 ** money.resolvedOptions().maximumFractionDigits;
const counting = new Intl.NumberFormat();
const timeOfDay = new Intl.DateTimeFormat(undefined, { timeStyle: 'medium', hourCycle: 'h23' });
const dayAndTime = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium', hourCycle: 'h23' });

export const formatPrice = (units) => money.format(units / smallestUnits);
export const parsePrice = (text) => Math.round(Number(text) * smallestUnits);
export const priceStep = String(1 / smallestUnits);
export const priceAsNumber = (units) => String(units / smallestUnits);
export const formatCount = (count) => counting.format(count);
export const plural = (count, one, many) => `${formatCount(count)} ${count === 1 ? one : many}`;
export const formatTime = (text) => timeOfDay.format(new Date(text));
export const formatDate = (text) => dayAndTime.format(new Date(text));

export function formatRate(rate) {
  return rate >= 100 || rate === 0 ? formatCount(Math.round(rate)) : rate.toFixed(1);
}

export function formatMilliseconds(milliseconds) {
  if (milliseconds === null || milliseconds === undefined) return '–';
  return milliseconds >= 100 ? formatCount(Math.round(milliseconds)) : milliseconds.toFixed(milliseconds < 1 ? 2 : 1);
}

export function formatSeconds(seconds) {
  if (seconds < 1) return seconds === 0 ? '0 s' : `${Math.round(seconds * 1000)} ms`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} days`;
}

// "1 d 02:03:04"; never below zero. Rounded up, so that it says 0 only when the time has come.
export function formatCountdown(milliseconds) {
  const seconds = Math.max(0, Math.ceil(milliseconds / 1000));
  const two = (value) => String(value).padStart(2, '0');
  const days = Math.floor(seconds / 86400);
  const rest = `${two(Math.floor(seconds / 3600) % 24)}:${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`;
  return days > 0 ? `${days} d ${rest}` : rest;
}
