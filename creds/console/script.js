'use strict';
// What works without this file too, made quicker: copying, a dialog in place of a
// page, links into closed parts of the form.

for (const button of document.querySelectorAll('[data-copy]')) {
  button.hidden = false;
  button.addEventListener('click', async () => {
    const field = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(field.value);
    } catch {
      field.select();
      document.execCommand('copy');
    }
    button.textContent = 'Copied';
    setTimeout(() => { button.textContent = 'Copy'; }, 2000);
  });
}

// A click on a bin asks in a dialog: the same page, in front of this one.
for (const link of document.querySelectorAll('[data-dialog]')) {
  link.addEventListener('click', async (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
    event.preventDefault();
    let form;
    try {
      const answer = await fetch(link.href, { redirect: 'error' });
      const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
      form = page.querySelector('form.confirm');
    } catch { /* the page itself will say */ }
    if (!form) {
      location.assign(link.href);
      return;
    }
    const dialog = document.createElement('dialog');
    dialog.setAttribute('aria-labelledby', 'confirm');
    dialog.append(document.importNode(form, true));
    document.body.append(dialog);
    const cancel = dialog.querySelector('[data-close]');
    cancel.addEventListener('click', (click) => { click.preventDefault(); dialog.close(); });
    dialog.addEventListener('close', () => { dialog.remove(); link.focus(); });
    dialog.showModal();
    cancel.focus();
  });
}

// An error's link goes to its field, also into a closed part of the form.
for (const link of document.querySelectorAll('.errors a[href^="#"]')) {
  link.addEventListener('click', (event) => {
    const field = document.getElementById(link.hash.slice(1));
    if (!field) return;
    event.preventDefault();
    const closed = field.closest('details:not([open])');
    if (closed) closed.open = true;
    if (event.detail > 0) {
      field.focus();
      return;
    }
    // By Enter: when the key is up, for a field that has the focus before takes the rest
    // of it for the wish to save. By other means there is no key to wait for.
    const go = () => {
      removeEventListener('keyup', go);
      clearTimeout(timer);
      field.focus();
    };
    const timer = setTimeout(go, 500);
    addEventListener('keyup', go);
  });
}

// A session ends without a click. Two minutes before, the page says so, and that what
// is typed stays: a login in another tab is one in this tab too.
if (document.body.dataset.left) {
  const warning = 120;
  let end = Date.now() + document.body.dataset.left * 1000;
  const box = document.createElement('div');
  box.className = 'ending';
  box.hidden = true;
  const text = document.createElement('p');
  text.setAttribute('role', 'alert');
  const stay = document.createElement('button');
  stay.type = 'button';
  stay.textContent = 'Stay logged in';
  box.append(text, stay);
  document.querySelector('header.top').after(box);

  const say = (words, button) => {
    if (text.textContent !== words) text.textContent = words;
    stay.hidden = !button;
    box.hidden = words === '';
  };
  const ask = async (method) => {
    try {
      const answer = await fetch('/session', { method, redirect: 'error' });
      if (answer.status === 401) {
        say('Your session has ended, and nothing was lost: log in again in another tab, then go on here.', false);
        return;
      }
      const left = await answer.json();
      end = Date.now() + left.seconds * 1000;
      if (left.seconds > warning) say('', false);
      else if (left.extends) say('Your session ends in less than two minutes.', true);
      else say('Your session ends in less than two minutes: save what you typed.', false);
    } catch { /* not reached: it is asked again */ }
  };
  stay.addEventListener('click', () => ask('POST'));
  let asked = 0;
  setInterval(() => {
    const left = (end - Date.now()) / 1000;
    if (left > warning || Date.now() - asked < 15000) return;
    asked = Date.now();
    ask('GET');
  }, 1000);
}
