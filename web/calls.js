// Calls to the server: JSON in and out, its problems as errors, and patience where the server asks for it.

import { session } from './session.js';

const ANSWER_TIMEOUT_MS = 15000;
const BACKOFF_FIRST_MS = 500;
const BACKOFF_MAX_MS = 15000;
const PATIENCE_MS = 600000;
const OPENING_WAIT_SECONDS_MAX = 5; // clocks differ a little: a sale that opens in a moment is waited for

// The server said no, and why.
export class Problem extends Error {
  constructor(status, body, retryAfterSeconds) {
    super(body.detail || body.title || `The server answered ${status}.`);
    this.status = status;
    this.body = body;
    this.slug = String(body.type || '').replace('/problems/', '');
    this.retryAfterSeconds = retryAfterSeconds;
  }

  // Detail, and what is wrong with each field.
  get words() {
    const fields = (this.body.errors || []).map((error) => `${error.field} ${error.message}`);
    return [this.message, ...fields].join(' · ');
  }
}

// No answer: it may have been done, or not.
export class Unanswered extends Error {}

// `crypto.randomUUID` is for secure origins only; a sale in a local network has none.
export function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

async function readProblem(response) {
  let body = {};
  try {
    body = await response.json();
  } catch {
    // Not ours: a proxy's page. The status says enough.
  }
  const seconds = Number(response.headers.get('Retry-After'));
  return new Problem(response.status, body, seconds > 0 ? seconds : null);
}

// Answers { status, body, replayed }; throws Problem or Unanswered. options: json, form, key, anonymous.
export async function call(method, path, options = {}) {
  const headers = { Accept: 'application/json' };
  let body;
  if (options.json) {
    headers['Content-Type'] = 'application/json';
    body = JSON.stringify(options.json);
  }
  if (options.form) body = new URLSearchParams(options.form);
  if (options.key) headers['Idempotency-Key'] = options.key;
  const token = options.anonymous ? null : session.token;
  if (token) headers.Authorization = `Bearer ${token}`;
  let response;
  try {
    response = await fetch(path, { method, headers, body, cache: 'no-store', signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS) });
    if (response.ok) {
      return {
        status: response.status,
        body: await response.json(),
        replayed: response.headers.get('Idempotent-Replayed') === 'true',
      };
    }
  } catch (error) {
    throw new Unanswered(error.message);
  }
  const problem = await readProblem(response);
  if (problem.status === 401 && token && token === session.token) session.end();
  throw problem;
}

// Is it worth the same call again? Only of calls that are safe to repeat.
export function mayPass(error) {
  if (error instanceof Unanswered) return true;
  if (!(error instanceof Problem)) return false;
  if (error.body.limit === 'sign-in') return false; // a wrong password does not get better
  if (error.status >= 500 || error.status === 429 || error.slug === 'request-in-progress') return true;
  return error.slug === 'sale-not-open' && error.retryAfterSeconds <= OPENING_WAIT_SECONDS_MAX;
}

// What the server asked for, and never all visitors at the same moment.
function pauseMs(error, tries) {
  const asked = (error.retryAfterSeconds || 0) * 1000;
  const backoff = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** tries);
  return asked + backoff * (0.5 + Math.random() / 2);
}

// Ends early when the network is back, and at once when given up.
async function pause(milliseconds, signal, onSecond) {
  const until = performance.now() + milliseconds;
  let woken = false;
  const wake = () => { woken = true; };
  window.addEventListener('online', wake);
  try {
    while (!woken && !signal.aborted && performance.now() < until) {
      const left = until - performance.now();
      onSecond(Math.ceil(left / 1000));
      await new Promise((done) => { setTimeout(done, Math.min(left, 250)); });
    }
  } finally {
    window.removeEventListener('online', wake);
  }
}

// Repeats `attempt` until it is answered for good. onWait(error, secondsLeft) is called again and again while it waits.
export async function patiently(attempt, onWait, signal = new AbortController().signal) {
  const giveUpAt = performance.now() + PATIENCE_MS;
  for (let tries = 0; ; tries += 1) {
    try {
      return await attempt();
    } catch (error) {
      if (!mayPass(error) || performance.now() > giveUpAt) throw error;
      await pause(pauseMs(error, tries), signal, (seconds) => onWait(error, seconds));
      if (signal.aborted) throw error;
    }
  }
}
