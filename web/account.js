// Signing in, registering and signing out, the same on every page.

import { call, patiently, Problem } from './calls.js';
import { field, openDialog } from './dialogs.js';
import { announce, h } from './dom.js';
import { session } from './session.js';

// An admin by role, or because this server lets every account be one.
async function mayAdminister(token) {
  const headers = { Authorization: `Bearer ${token}`, Accept: 'application/json' };
  const me = await fetch('/api/auth/me', { headers, cache: 'no-store' });
  if (me.ok && (await me.json()).role === 'admin') return true;
  const audit = await fetch('/api/admin/audit?limit=1', { headers, cache: 'no-store' });
  return audit.ok;
}

// A first try whose answer was lost may have made the account: then its name is taken, and signing in says whether by us.
async function register(account, waiting, signal) {
  let inDoubt = false;
  const wait = (error, seconds) => { inDoubt ||= !(error instanceof Problem); waiting(error, seconds); };
  try {
    await patiently(() => call('POST', '/api/auth/register', { json: account, anonymous: true }), wait, signal);
  } catch (error) {
    if (!inDoubt || error.slug !== 'username-taken') throw error;
  }
}

async function enter({ username, password, again }, isNew, forAdmins, say, signal) {
  const waiting = (error, seconds) => say(`${error instanceof Problem ? error.message : 'No answer came.'} Trying again by itself in ${seconds} s.`, 'waiting');
  if (isNew && password !== again) {
    say('The two passwords differ.');
    return false;
  }
  try {
    say(isNew ? 'Making the account …' : 'Signing in …', 'waiting');
    if (isNew) await register({ username, password }, waiting, signal);
    const { body } = await patiently(() => call('POST', '/api/auth/login', { form: { username, password }, anonymous: true }), waiting, signal);
    const isAdmin = forAdmins && await mayAdminister(body.access_token);
    if (forAdmins && !isAdmin) {
      say(`${username} is not an admin. Accounts become admins by the setup tool.`);
      return false;
    }
    if (signal.aborted) return false;
    session.begin(username, body.access_token, body.expires_in, isAdmin);
    announce(`Signed in as ${username}.`);
    return true;
  } catch (error) {
    say(error instanceof Problem ? error.words : 'The server cannot be reached. Try again in a moment.');
    return false;
  }
}

// Answers true once somebody is signed in, false if the dialog was closed.
export async function signIn({ why = '', forAdmins = false, isNew = false } = {}) {
  let turned = false;
  const turn = h('button', { type: 'button', class: 'link' }, isNew ? 'I have an account: sign in' : 'New here? Make an account');
  turn.addEventListener('click', () => { turned = true; turn.closest('dialog').close(); });
  const done = await openDialog({
    title: isNew ? 'Make an account' : forAdmins ? 'Admin sign-in' : 'Sign in',
    body: [
      why ? h('p', {}, why) : null,
      field('User name', { name: 'username', autocomplete: 'username', required: true, minlength: isNew ? 3 : null, maxlength: 50, autocapitalize: 'none', spellcheck: 'false', autofocus: true }),
      field('Password', { name: 'password', type: 'password', autocomplete: isNew ? 'new-password' : 'current-password', required: true, minlength: isNew ? 6 : null, maxlength: 100 },
        isNew ? 'At least 6 characters.' : null),
      isNew ? field('Password again', { name: 'again', type: 'password', autocomplete: 'new-password', required: true, maxlength: 100 }) : null,
    ],
    submit: isNew ? 'Make it and sign in' : 'Sign in',
    extra: forAdmins ? null : turn,
    onSubmit: (values, say, signal) => enter(values, isNew, forAdmins, say, signal),
  });
  return turned && !done ? signIn({ why, forAdmins, isNew: !isNew }) : done;
}

// Somebody who signed in to buy may be an admin too.
export async function learnRole() {
  const { token } = session;
  try {
    if (token && !session.mayAdminister && await mayAdminister(token) && token === session.token) session.allowAdminister();
  } catch {
    // Not reached: the page shows what everybody may see, and "Admin sign-in".
  }
}

// The corner of the page that says who is signed in. `links` are shown beside the name.
export function showAccount(place, { forAdmins = false, links = [] } = {}) {
  const render = () => {
    const hadFocus = place.contains(document.activeElement);
    const enterButton = h('button', { type: 'button', class: 'quiet', onclick: () => signIn({ forAdmins }) }, 'Sign in');
    const leaveButton = h('button', { type: 'button', class: 'quiet', onclick: () => { session.end(); announce('Signed out.'); } }, 'Sign out');
    if (session.username) {
      place.replaceChildren(...links, h('span', { class: 'who' }, session.username),
        ...(forAdmins && !session.mayAdminister ? [enterButton] : []), leaveButton);
    } else {
      place.replaceChildren(enterButton);
    }
    if (hadFocus) place.querySelector('button').focus();
  };
  session.addEventListener('change', render);
  render();
}
