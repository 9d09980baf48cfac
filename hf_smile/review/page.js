// Runs when the page is there: `element` is its skeleton, and `server` asks `Page.press`.
let at = -1, imageId = '', busy = false;
const problem = element.querySelector('.hr-problem');
const press = async (key) => {
    if (busy) return;  // what is pressed before the next picture shows is not about it
    busy = true;
    try {
        const answer = await server.press({key, at, image_id: imageId});
        if (answer.parts) {
            ({at, image_id: imageId} = answer);
            for (const [name, html] of Object.entries(answer.parts)) {
                element.querySelector(`[data-part="${name}"]`).innerHTML = html;
            }
        }
        problem.textContent = answer.parts ? '' : answer.problem || 'The server could not do this.';
    } catch (error) {
        problem.textContent = 'The server has ended. What you decided is on disk: start it again, and load this page.';
    }
    busy = false;
};
const keys = {Enter: 'k', ArrowLeft: 'left', ArrowRight: 'right'};
document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest?.('button, input, textarea') && ['Enter', ' '].includes(event.key)) return;
    const key = keys[event.key] || event.key.toLowerCase();
    if (!element.querySelector(`button[data-key="${CSS.escape(key)}"]`)) return;
    event.preventDefault();
    if (!event.repeat || key.length > 1) press(key);  // a key held down decides once
});
element.addEventListener('click', (event) => {
    const button = event.target.closest('button[data-key]');
    if (!button) return;
    if (event.detail) button.blur();  // by the mouse: Enter is to keep the next label, not to press this again
    press(button.dataset.key);
});
press('');
