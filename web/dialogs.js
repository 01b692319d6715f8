// Dialogs: a form in a <dialog>, which keeps the keyboard inside and gives the focus back when it closes.

import { h, setText } from './dom.js';

let serial = 0;

// A labelled input. `properties.name` is its name in the form's values.
export function field(label, properties, hint) {
  const id = `field-${(serial += 1)}`;
  const { tag = 'input', options, ...rest } = properties;
  const input = h(tag, { id, 'aria-describedby': hint ? `${id}-hint` : null, ...rest });
  for (const [value, text] of options || []) input.append(h('option', { value }, text));
  return h('div', { class: 'field' }, h('label', { for: id }, label), input,
    hint ? h('p', { id: `${id}-hint`, class: 'hint' }, hint) : null);
}

// Opens it; answers when it has closed: true if `onSubmit` let it close by returning true.
// onSubmit(values, say, signal) may take its time; say(text, kind) shows a line in the dialog. Meanwhile the cancel button stops it, and does not close:
// what is under way may be done or not, which nobody should take for "nothing was done". `signal` tells, of that and of a dialog that was closed anyway.
export function openDialog({ title, body, submit, submitClass = '', cancel = 'Cancel', extra, onSubmit }) {
  return new Promise((done) => {
    const id = `dialog-${(serial += 1)}`;
    const message = h('p', { class: 'message', role: 'alert' });
    const confirm = h('button', { type: 'submit', class: `primary ${submitClass}` }, submit);
    const leave = h('button', { type: 'button', class: 'quiet', onclick: () => leaveOrStop() }, cancel);
    const form = h('form', { method: 'dialog' },
      h('h2', { id }, title),
      ...body,
      message,
      h('div', { class: 'actions' }, leave, confirm),
      extra || null);
    const dialog = h('dialog', { 'aria-labelledby': id }, form);
    let succeeded = false;
    let running = null; // the AbortController of a submit under way
    const leaveOrStop = () => { if (running && !running.signal.aborted) running.abort(); else dialog.close(); };
    const say = (text, kind = 'bad') => { message.className = `message ${kind}`; setText(message, text); };
    const close = () => {
      if (running) running.abort();
      if (dialog.isConnected) { dialog.remove(); done(succeeded); }
    };
    form.addEventListener('submit', async (event) => {
      event.preventDefault();
      if (running) return;
      running = new AbortController();
      const { signal } = running;
      confirm.setAttribute('aria-disabled', 'true');
      setText(leave, 'Stop trying');
      say('');
      try {
        succeeded = await onSubmit(Object.fromEntries(new FormData(form)), say, signal);
      } finally {
        running = null;
        confirm.removeAttribute('aria-disabled');
        setText(leave, signal.aborted ? 'Close' : cancel);
      }
      if (succeeded) dialog.close();
    });
    dialog.addEventListener('cancel', (event) => { event.preventDefault(); leaveOrStop(); }); // the Escape key
    dialog.addEventListener('close', close);
    document.body.append(dialog);
    dialog.showModal();
  });
}

// "Do you really?" in words that say what will happen.
export function confirmDialog({ title, words, submit, submitClass, cancel, onSubmit = () => true }) {
  return openDialog({ title, body: words.map((text) => h('p', {}, text)), submit, submitClass, cancel, onSubmit });
}
