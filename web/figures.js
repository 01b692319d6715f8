// The figures of the sale, live: the server's event stream, or asking for them again and again where there is no stream.
//
//   streaming --nothing for SILENT_MS, or refused--> polling --the stream is back--> streaming
//   hidden page: neither, after HIDDEN_MS

const SILENT_MS = 3000;
const HIDDEN_MS = 5000;
const POLL_MS = 2000;
const POLL_MAX_MS = 30000;
const STREAM_AGAIN_MS = 20000;
const CLOCK_FRAMES = 20;

const jitter = (milliseconds) => milliseconds * (0.75 + Math.random() / 2);

// The server's time, however wrong the visitor's clock is. A frame's time is a little old when it arrives: the youngest of the last ones counts.
class ServerClock {
  #offsets = [];

  hear(at) {
    this.#offsets.push(Date.parse(at) - performance.now());
    if (this.#offsets.length > CLOCK_FRAMES) this.#offsets.shift();
  }

  get now() {
    return this.#offsets.length ? performance.now() + Math.max(...this.#offsets) : Date.now();
  }
}

export const serverClock = new ServerClock();

class Watcher {
  #onFigures;
  #source = null;
  #heardAt = performance.now();
  #everHeard = false;
  #streamed = false;
  #pollTimer = 0;
  #pollFailures = 0;
  #streamAt = 0;
  #hiddenTimer = 0;

  constructor(onFigures) {
    this.#onFigures = onFigures;
    this.#openStream();
    setInterval(() => this.#look(), 500);
    document.addEventListener('visibilitychange', () => this.#followVisibility());
    // A page that is left may be kept for "back", with its connection: six of these, and the browser opens no more to this server.
    window.addEventListener('pagehide', () => this.#rest());
    window.addEventListener('pageshow', (event) => { if (event.persisted) this.#openStream(); });
    window.addEventListener('online', () => { this.#streamAt = 0; this.#pollFailures = 0; this.#pollNow(); });
  }

  // 'connecting', 'live', 'polling' or 'silent'
  get state() {
    const patienceMs = SILENT_MS + (this.#everHeard && !this.#streamed ? POLL_MS : 0);
    if (this.silentSeconds * 1000 > patienceMs && (this.#everHeard || this.#pollFailures > 0)) return 'silent';
    if (!this.#everHeard) return 'connecting';
    return this.#streamed ? 'live' : 'polling';
  }

  get everHeard() { return this.#everHeard; }

  get silentSeconds() { return (performance.now() - this.#heardAt) / 1000; }

  #hear(text, streamed) {
    const figures = JSON.parse(text);
    serverClock.hear(figures.at);
    this.#heardAt = performance.now();
    this.#everHeard = true;
    this.#streamed = streamed;
    this.#pollFailures = 0;
    this.#onFigures(figures);
  }

  #openStream() {
    this.#closeStream();
    this.#streamAt = performance.now() + jitter(STREAM_AGAIN_MS);
    this.#source = new EventSource('/api/events');
    this.#source.addEventListener('figures', (event) => {
      this.#stopPolling();
      this.#hear(event.data, true);
    });
    // Closed: refused, and it will not try again by itself. Else it does.
    this.#source.addEventListener('error', () => this.#pollNow());
  }

  #closeStream() {
    if (this.#source) this.#source.close();
    this.#source = null;
  }

  #stopPolling() {
    clearTimeout(this.#pollTimer);
    this.#pollTimer = 0;
  }

  #pollNow() {
    if (!this.#pollTimer && !this.#asleep) this.#pollTimer = setTimeout(() => this.#poll(), jitter(500));
  }

  async #poll() {
    let pause = POLL_MS;
    try {
      const response = await fetch('/api/figures', { cache: 'no-store', signal: AbortSignal.timeout(10000) });
      if (!response.ok) {
        pause = Math.max(pause, 1000 * (Number(response.headers.get('Retry-After')) || 0));
        throw new Error(`status ${response.status}`);
      }
      const text = await response.text();
      if (this.#pollTimer) this.#hear(text, false); // else the stream was faster
    } catch {
      this.#pollFailures += 1;
      pause = Math.min(POLL_MAX_MS, Math.max(pause, 500 * 2 ** this.#pollFailures));
    }
    if (this.#pollTimer) this.#pollTimer = setTimeout(() => this.#poll(), jitter(pause));
  }

  // Twice a second: is the stream still there?
  #look() {
    if (this.#asleep) return;
    if (this.silentSeconds * 1000 > SILENT_MS) this.#pollNow();
    const closed = !this.#source || this.#source.readyState === EventSource.CLOSED;
    if (closed && performance.now() > this.#streamAt) this.#openStream();
  }

  #rest() {
    this.#closeStream();
    this.#stopPolling();
  }

  get #asleep() { return document.hidden && this.#source === null; }

  // Nobody looks: that place in the stream is somebody else's.
  #followVisibility() {
    clearTimeout(this.#hiddenTimer);
    if (document.hidden) {
      this.#hiddenTimer = setTimeout(() => this.#rest(), HIDDEN_MS);
    } else if (!this.#source) {
      this.#openStream();
    }
  }
}

export function watchFigures(onFigures) {
  return new Watcher(onFigures);
}
