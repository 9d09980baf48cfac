// Scripts of the page; `js_on_load` of its components calls these functions.
window.hs = (() => {
  const slug = (tab) => tab.textContent.trim().toLowerCase().replaceAll(' ', '-');
  const tabs = () => [...document.querySelectorAll('.tab-container [role=tab]')];
  const openTab = (name) => tabs().find((tab) => slug(tab) === name)?.click();
  const tabOfAddress = () => openTab(location.hash.slice(1) || 'photo');

  // Screen readers only announce changes in a region that already exists.
  const region = Object.assign(document.createElement('div'), { id: 'hs-said', role: 'status' });
  document.body.append(region);
  const say = (text) => { region.textContent = text; };

  // Keep the tab in the address, for links, reloads and Back.
  document.addEventListener('click', (event) => {
    const tab = event.target.closest?.('[role=tab]');
    if (tab && slug(tab) !== (location.hash.slice(1) || 'photo')) history.pushState(null, '', `#${slug(tab)}`);
  });
  const follow = new MutationObserver(() => {
    if (!tabs().length) return;
    follow.disconnect();
    tabOfAddress();
  });
  follow.observe(document, { childList: true, subtree: true });
  addEventListener('hashchange', tabOfAddress);

  let number = 0; // of requests: of several, the answer to the last one counts

  const LARGEST = 30 * 2 ** 20; // bytes; MAX_UPLOAD in app.py
  const plain = (message) => (/fetch|connection/i.test(message) ? 'it could not be read or sent.' : message);

  // A photo can be chosen, dropped, pasted, or selected from the examples.
  let takeWhole = () => {};
  function intake(element, trigger, upload) {
    let last = {};
    let given = 0; // of two uploads, the later one counts, not the slower one
    const ask = (kind, what) => trigger(kind, { ...(last = what), number: ++number });
    takeWhole = () => trigger('select', { ...last, whole: true, number: ++number });
    const input = element.querySelector('input');
    const problem = element.querySelector('[role=alert]');
    async function give(file) {
      if (!file) return;
      openTab('photo');
      expectResult();
      problem.textContent = '';
      stale(true);
      element.classList.add('hs-sending');
      input.value = ''; // so that the same file can be chosen again
      const mine = ++given;
      const sent = file.size > LARGEST ? { why: 'it is larger than 30 MB.' }
        : await upload(file).catch((error) => ({ why: plain(error.message) }));
      if (mine !== given) return;
      element.classList.remove('hs-sending');
      if (sent.why) problem.textContent = `The photo could not be sent: ${sent.why}`;
      else { stale(false); ask('upload', { path: sent.path }); }
    }
    element.addEventListener('click', (event) => {
      const example = event.target.closest('[data-example]');
      if (!example) return;
      expectResult();
      given += 1;
      element.classList.remove('hs-sending');
      stale(false);
      problem.textContent = '';
      ask('select', { example: Number(example.dataset.example) });
    });
    const only = (files) => [...files].find((file) => file.type.startsWith('image/')) ?? files[0];
    input.addEventListener('change', () => give(input.files[0]));
    addEventListener('paste', (event) => give(only(event.clipboardData.files)));
    const here = (event) => element.checkVisibility() && event.dataTransfer.types.includes('Files');
    addEventListener('dragover', (event) => here(event) && event.preventDefault());
    addEventListener('drop', (event) => {
      if (!here(event)) return;
      event.preventDefault();
      give(only(event.dataTransfer.files));
    });
  }

  // Reserve space for the result at once, to keep the layout stable.
  const expectResult = () => document.getElementById('photo-tab').classList.add('hs-given');
  // While a photo is sent, and if that fails, the verdict on the photo before is not shown.
  const stale = (is) => document.getElementById('photo-tab').classList.toggle('hs-stale', is);

  // Announce a new result and scroll to it.
  function result(element, watch) {
    watch('value', () => {
      const sentence = element.querySelector('[data-say]');
      if (!sentence || element.closest('.hs-stale')) return;
      say(sentence.dataset.say);
      const calm = matchMedia('(prefers-reduced-motion: reduce)').matches;
      const show = () => element.scrollIntoView({ block: 'start', behavior: calm ? 'auto' : 'smooth' });
      setTimeout(show, 50); // after the layout is complete
    });
  }

  // The results of all faces are already on the page: selecting a face only shows its result.
  function faces(element, trigger) {
    element.addEventListener('click', (event) => {
      if (event.target.closest('[data-whole]')) takeWhole();
      const index = event.target.closest('button[data-face]')?.dataset.face;
      if (index === undefined) return;
      for (const part of element.querySelectorAll('[data-face]')) {
        const chosen = part.dataset.face === index;
        if (part.matches('button')) part.setAttribute('aria-pressed', chosen);
        else part.hidden = !chosen;
        if (chosen && part.dataset.say) say(part.dataset.say);
      }
      trigger('select');
    });
  }
  // What the heat map is asked for.
  const asked = () => ({
    face: Number(document.querySelector('#picture [aria-pressed=true]')?.dataset.face ?? 0),
    number: ++number,
  });

  // The camera. Each frame is sent after the answer to the previous one, so server and network set the frame rate.
  let frame = 0;
  let answered = () => {};
  function camera(element, trigger) {
    const [stage, video, over, button, problem] = ['.hs-camera', 'video', '.hs-over', 'button', '[role=alert]']
      .map((part) => element.querySelector(part));
    const canvas = document.createElement('canvas');
    let late;
    let starting = false; // the browser asks the visitor for permission
    function stop(why = '') {
      clearTimeout(late);
      video.srcObject?.getTracks().forEach((track) => track.stop());
      video.srcObject = null;
      stage.hidden = true;
      over.textContent = '';
      document.getElementById('live-answer').classList.remove('hs-on');
      button.textContent = 'Start the camera';
      problem.textContent = why;
    }
    async function start() {
      if (starting) return;
      starting = true;
      const denied = 'The browser does not let this page use the camera. Allow it in the site settings.';
      const why = {
        NotAllowedError: denied,
        NotFoundError: 'No camera was found.',
        NotReadableError: 'The camera is in use.',
      };
      problem.textContent = '';
      let stream;
      try {
        stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'user', width: 640 } });
        video.srcObject = stream;
        if (document.hidden || !element.offsetParent) return stop(); // the visitor has left the tab meanwhile
        stage.hidden = false;
        await video.play();
      } catch (error) {
        if (stream && !video.srcObject) return; // stopped before the first picture
        return stop(why[error.name] ?? `The camera can't be used: ${error.message}`);
      } finally {
        starting = false;
      }
      if (video.srcObject !== stream) return;
      stream.getVideoTracks()[0].addEventListener('ended', () => stop('The camera was disconnected.'));
      document.getElementById('live-answer').classList.add('hs-on');
      button.textContent = 'Stop the camera';
      send();
    }
    function send() {
      clearTimeout(late);
      if (!video.srcObject) return;
      const shrink = Math.min(1, 640 / Math.max(video.videoWidth, video.videoHeight));
      canvas.width = video.videoWidth * shrink;
      canvas.height = video.videoHeight * shrink;
      canvas.getContext('2d').drawImage(video, 0, 0, canvas.width, canvas.height);
      trigger('input', { frame: canvas.toDataURL('image/jpeg', 0.85), number: ++frame });
      late = setTimeout(send, 5000); // continue if a frame gets no answer
    }
    answered = (answer) => {
      if (Number(answer.dataset.number) !== frame || !video.srcObject) return;
      over.innerHTML = answer.querySelector('.hs-boxes').innerHTML;
      send();
    };
    document.addEventListener('visibilitychange', () => document.hidden && stop());
    new IntersectionObserver(([seen]) => seen.isIntersecting || stop()).observe(element);
    button.addEventListener('click', () => (video.srcObject ? stop() : start()));
  }
  const answer = (element, watch) => watch('value', () => answered(element.querySelector('[data-number]')));

  return { intake, result, faces, asked, camera, answer };
})();
