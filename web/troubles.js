// What is wrong, in words that say what to do. Pure: figures in, sentences out.

import { formatSeconds, plural } from './dom.js';

const RECORDER_SILENT_SECONDS = 2;
const LAG_SECONDS = 1;
const START_MS = 5000; // a process that is younger than this may still be on its way

const COMPARED_SECONDS = 5; // books that were compared longer ago are not known to be equal
const PRODUCTS_A_SECOND = 32; // many products are compared some at a time: all of them take so much longer

// The stock, the orders and the books on the page are the recorder's: while it is silent they are old.
export const recorderIsSilent = ({ recorder }) => !recorder.up || recorder.silent_seconds > RECORDER_SILENT_SECONDS;

// Of several servers one records; the others watch.
export const standsBy = ({ active }) => active === false;

// 'unknown', 'old', 'equal' or 'differ'
export function judgeBooks(figures) {
  const { at, books, products_total: total } = figures;
  if (!books.compared_at) return 'unknown';
  if (!books.equal) return 'differ';
  const age = (Date.parse(at) - Date.parse(books.compared_at)) / 1000;
  return recorderIsSilent(figures) || age > COMPARED_SECONDS + total / PRODUCTS_A_SECOND ? 'old' : 'equal';
}

// Coarse: the banner is read aloud whenever its words change.
const forHowLong = (seconds) => (seconds < 10 ? 'some seconds' : formatSeconds(10 * Math.floor(seconds / 10)));

function ofBooks({ books, products }) {
  if (books.equal) return [];
  const names = products.filter((product) => product.books_equal === false).map((product) => `“${product.name}”`).join(', ');
  return [{
    title: `The books differ${books.differences ? ` in ${plural(books.differences, 'product', 'products')}` : ''}.`,
    text: `${names ? `Look at ${names}. ` : ''}The recorder heals what was edited in Redis by itself, within a second or two. If this stays, close the sale and run doorbuster-verify: it names each difference.`,
  }];
}

function ofRecorder(figures) {
  const { recorder } = figures;
  if (recorderIsSilent(figures) && standsBy(recorder)) {
    return [{
      minor: true,
      title: `The ${recorder.name}, which stands by, gives no sign of life for ${forHowLong(recorder.silent_seconds)}.`,
      text: 'What this page shows of stock and books is old. Another server records, if its own page says so. Look at this server’s log for why: a store or a Redis that cannot be reached from here.',
    }];
  }
  if (recorderIsSilent(figures)) {
    return [{
      title: `The ${recorder.name} gives no sign of life for ${forHowLong(recorder.silent_seconds)}.`,
      text: 'It is started again by itself, and buyers wait meanwhile; at the Redlock gate sales go on. If it does not come back within half a minute, look at the server’s log for why: a full disk, a store that cannot be opened, a Redis that cannot be reached.',
    }];
  }
  if (recorder.lag_seconds > LAG_SECONDS) {
    return [{
      minor: true,
      title: `The ${recorder.name} is behind by ${forHowLong(recorder.lag_seconds)}.`,
      text: 'Buyers wait longer for their answer. Look at how busy the disk is.',
    }];
  }
  return [];
}

function ofGate({ products }) {
  const dark = products.filter((product) => product.opened && product.available === null);
  return dark.length === 0 ? [] : [{
    title: 'The live stock cannot be read.',
    text: 'Redis does not answer, so nothing can be sold now. A private Redis is started again by itself; look after one of your own. What was sold is safe in the store.',
  }];
}

function ofProcesses({ processes, at }) {
  const isStarting = (process) => process.started_at && Date.parse(at) - Date.parse(process.started_at) < START_MS;
  const down = processes.filter((process) => !process.up && !isStarting(process)).map((process) => process.name);
  return down.length === 0 ? [] : [{
    minor: true,
    title: `Not up: ${down.join(', ')}.`,
    text: 'The supervisor starts it again by itself. If it keeps falling, look at the server’s log for its last lines.',
  }];
}

// What each stands for: docs/operations.md, DoorbusterBreakerOpen.
const breakerWords = {
  redis: {
    title: 'Redis cannot be reached, or does not answer.',
    text: 'Nothing can be sold meanwhile, and buyers are asked to come back. A private Redis is started again by itself; look after one of your own, and after the network to it.',
  },
  record: {
    title: 'Selling pauses: sales wait for their record.',
    text: 'The recorder is silent or behind, or its Redis hangs. Look at “Who is up”, at how busy the disk is, and at Redis; selling goes on by itself when the recorder has caught up.',
  },
  store: {
    title: 'The store does not answer.',
    text: 'Nobody can sign in or look at orders. Look for a full disk, and for a foreign program that holds the database.',
  },
  books: {
    title: 'The two books cannot be read side by side.',
    text: 'What looks at both, an exact stock and changes by admins, is answered 503; buying is not touched by that. Look after Redis, or the lock nodes.',
  },
};

function ofBreakers({ breakers }) {
  return breakers.filter((breaker) => breaker.state !== 'closed').map(({ name, state }) => {
    if (state !== 'open') return { minor: true, title: `The breaker “${name}” is ${state}.`, text: 'It is being tried again, with a few requests. Nothing to do.' };
    const { title, text } = breakerWords[name] ?? { title: `The breaker “${name}” is open.`, text: 'What it stands for is left alone for a moment.' };
    return { title, text: `${text} The reason: /health/ready, “breaker ${name}”.` };
  });
}

function ofStream(state, silentSeconds) {
  return state !== 'silent' ? [] : [{
    title: `No news from the server for ${forHowLong(silentSeconds)}.`,
    text: 'All figures on this page are old. Check that doorbuster-server runs and that this computer reaches it. This page goes on by itself.',
  }];
}

// Worst first. figures: null before the first ones.
export function findTroubles(figures, state, silentSeconds) {
  const found = ofStream(state, silentSeconds);
  if (found.length === 0 && figures) {
    for (const look of [ofBooks, ofGate, ofRecorder, ofProcesses, ofBreakers]) found.push(...look(figures));
  }
  return found.sort((a, b) => Boolean(a.minor) - Boolean(b.minor));
}
