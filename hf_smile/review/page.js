// Runs when the page has loaded. `element` contains the page, and `server.press` calls `Page.press`.
let at = -1, imageId = '', busy = false;
const view = element.querySelector('.hr');
const said = Object.assign(document.createElement('p'), {className: 'hr-said', role: 'status'});
view.after(said);
const say = (text, isProblem = false) => {
    said.textContent = text;
    said.classList.toggle('hr-problem', isProblem);
};
const press = async (key) => {
    if (busy) return;  // ignore keys until the next picture is shown
    busy = true;
    const focused = document.activeElement?.dataset?.key;
    try {
        const answer = await server.press({key, at, image_id: imageId});
        if (answer.html) {
            ({at, image_id: imageId} = answer);
            view.innerHTML = answer.html;
            if (focused) view.querySelector(`[data-key="${focused}"]`)?.focus();
            say(view.querySelector('.hr-about').innerText);
        } else {
            say(answer.problem || 'The server could not do this.', true);
        }
    } catch (error) {
        say('The server has stopped. Your decisions are saved: start it again and reload this page.', true);
    }
    busy = false;
};
const keys = {Enter: 'k', ArrowLeft: 'left', ArrowRight: 'right'};
document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest?.('button') && ['Enter', ' '].includes(event.key)) return;
    const key = keys[event.key] || event.key.toLowerCase();
    if (!view.querySelector(`[data-key="${CSS.escape(key)}"]`)) return;
    event.preventDefault();
    if (!event.repeat || key.length > 1) press(key);  // a key that is held down decides once
});
view.addEventListener('click', (event) => {
    const button = event.target.closest('[data-key]');
    if (!button) return;
    if (event.detail) button.blur();  // after a mouse click, Enter must keep the next label, not press this again
    press(button.dataset.key);
});
press('');
