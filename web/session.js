// Who is signed in, in this tab only: closing the tab forgets it.

const NAME = 'doorbuster.session';

function read() {
  try {
    const kept = JSON.parse(sessionStorage.getItem(NAME));
    return kept && kept.expiresAt > Date.now() ? kept : null;
  } catch {
    return null;
  }
}

class Session extends EventTarget {
  #kept = read();

  get token() { return this.#kept ? this.#kept.token : null; }

  get username() { return this.#kept ? this.#kept.username : null; }

  get mayAdminister() { return Boolean(this.#kept && this.#kept.mayAdminister); }

  begin(username, token, lifetimeSeconds, mayAdminister) {
    this.#keep({ username, token, mayAdminister, expiresAt: Date.now() + lifetimeSeconds * 1000 });
  }

  allowAdminister() { this.#keep({ ...this.#kept, mayAdminister: true }); }

  end() { this.#keep(null); }

  #keep(kept) {
    this.#kept = kept;
    if (kept) sessionStorage.setItem(NAME, JSON.stringify(kept));
    else sessionStorage.removeItem(NAME);
    this.dispatchEvent(new Event('change'));
  }
}

export const session = new Session();
