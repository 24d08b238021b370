"""The page's "Live" tab: microphone in, words and speech out, over the WebSocket of /v1/live."""

import html
from collections.abc import Sequence

# On the audio thread: 16-bit samples in blocks of 2,048, as the WebSocket takes them.
WORKLET = """
class Sender extends AudioWorkletProcessor {
  constructor() { super(); this.block = new Int16Array(2048); this.filled = 0; }
  process(inputs) {
    for (const sample of inputs[0][0] || []) {
      this.block[this.filled++] = 32767 * Math.max(-1, Math.min(1, sample));
      if (this.filled === this.block.length) { this.port.postMessage(this.block.slice()); this.filled = 0; }
    }
    return true;
  }
}
registerProcessor("sender", Sender);
"""

SCRIPT = """
(() => {
  let live = null, lines = 0;
  const part = (name) => document.getElementById("uw-live-" + name);
  const tell = (text, error) => {
    part("state").textContent = text;
    part("state").className = "uw-message" + (error ? " uw-error" : "");
  };
  const line = (number) => {
    let found = document.getElementById("uw-live-line-" + number);
    if (!found) {
      lines = number + 1;
      found = document.createElement("li");
      found.id = "uw-live-line-" + number;
      found.append(...["heard", "english"].map((name) => {
        const text = document.createElement("p");
        text.className = "uw-" + name;
        return text;
      }));
      found.lastChild.append(document.createElement("span"), document.createElement("span"));
      found.lastChild.lastChild.className = "uw-guess";
      found.lastChild.lastChild.ariaHidden = "true";
      part("lines").append(found);
      while (part("lines").children.length > 200) part("lines").firstChild.remove();
    }
    return found;
  };
  const show = (event) => {
    if (event.event === "error") { tell(event.error, true); return; }
    if (event.event === "speech") return;
    const [heard, english] = line(live.first + event.utterance).children;
    const [said, guess] = english.children;
    if (event.transcript !== undefined) heard.textContent = event.transcript;
    if (event.event === "translation") said.textContent += event.text;
    if (event.event === "end") said.textContent = event.translation || said.textContent;
    // What may follow is shown, but not as if it were sure: the next hypothesis replaces it.
    if (event.event === "transcript") live.hypothesis = event.translation;
    const sure = said.textContent, follows = event.event !== "end" && live.hypothesis.startsWith(sure);
    guess.textContent = follows ? live.hypothesis.slice(sure.length) : "";
    part("lines").scrollTop = part("lines").scrollHeight;
  };
  const play = (data) => {
    if (!part("speech").checked) return;
    const samples = Float32Array.from(new Int16Array(data), (value) => value / 32768);
    const buffer = live.audio.createBuffer(1, samples.length, 16000);
    buffer.copyToChannel(samples, 0);
    const source = live.audio.createBufferSource();
    source.buffer = buffer;
    source.connect(live.audio.destination);
    live.next = Math.max(live.next, live.audio.currentTime);
    source.start(live.next);
    live.next += buffer.duration;
  };
  const release = (session) => {
    if (session.stream) session.stream.getTracks().forEach((track) => track.stop());
    if (session.node) session.node.disconnect();
  };
  const stop = () => {
    release(live);
    if (live.socket && live.socket.readyState === WebSocket.OPEN) live.socket.send(JSON.stringify({event: "finish"}));
    part("button").textContent = "Start";
    live.stopped = true;
    tell("Stopped.");
  };
  const start = async () => {
    const session = live = {next: 0, first: lines, stopped: false, hypothesis: ""};
    part("button").textContent = "Stop";
    tell("Waiting for the microphone.");
    try {
      session.stream = await navigator.mediaDevices.getUserMedia({audio: {channelCount: 1, echoCancellation: true}});
      session.audio = new AudioContext();
      await session.audio.audioWorklet.addModule("v1/live/worklet.js");
    } catch (error) {
      release(session);
      part("button").textContent = "Start";
      live = null;
      return tell("The microphone cannot be used: " + (error.message || error.name) + ".", true);
    }
    if (session.stopped) return release(session);  // while we waited
    const address = new URL("v1/live", document.baseURI);
    address.protocol = address.protocol.replace("http", "ws");
    const socket = session.socket = new WebSocket(address);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      if (session.stopped) { socket.close(); return; }
      const settings = {sample_rate: session.audio.sampleRate, policy: part("policy").value,
                        text_only: !part("speech").checked};
      for (const name of ["language", "target_language"]) if (part(name).value) settings[name] = part(name).value;
      socket.send(JSON.stringify(settings));
      session.node = new AudioWorkletNode(session.audio, "sender");
      session.node.port.onmessage = (message) => {
        if (session.stopped || socket.readyState !== WebSocket.OPEN) return;
        if (socket.bufferedAmount > 1e6) { tell("The server cannot keep up.", true); socket.close(); }
        else socket.send(message.data);
      };
      session.audio.createMediaStreamSource(session.stream).connect(session.node);
      tell("Listening. Speak.");
    };
    socket.onmessage = (message) => {
      if (session !== live) return;
      if (typeof message.data === "string") show(JSON.parse(message.data)); else play(message.data);
    };
    socket.onclose = () => {
      setTimeout(() => session.audio.close(), 1000 * Math.max(0, session.next - session.audio.currentTime) + 500);
      if (session !== live) return;
      release(session);
      part("button").textContent = "Start";
      if (!session.stopped && !part("state").className.includes("uw-error")) tell("The connection has ended.", true);
      live = {...session, stopped: true};
    };
  };
  document.addEventListener("click", (event) => {
    if (event.target.id !== "uw-live-button") return;
    if (live && !live.stopped) stop(); else start();
  });
})();
"""

CSS = """
.uw-live { display: flex; flex-wrap: wrap; gap: .8rem; align-items: center; margin-bottom: .8rem; }
.uw-live button { font: inherit; padding: .5rem 1.6rem; border-radius: .5rem; background: #0f766e; color: #fff;
  cursor: pointer; min-width: 7rem; }
.uw-live select { font: inherit; padding: .35rem .5rem; border-radius: .4rem; border: 1px solid #8888;
  background: transparent; color: inherit; }
.uw-live select option { color: #111; }
/* gradio takes the browser's own marks away. */
.uw-live select, .uw-live input { appearance: auto; background-image: none; accent-color: #0f766e; }
.uw-live input { width: 1.1em; height: 1.1em; vertical-align: -.15em; }
#uw-live-lines { list-style: none; padding: 0; margin: .8rem 0; max-height: 24rem; overflow-y: auto; }
#uw-live-lines li { margin: 0 0 .8rem; padding-left: .8rem; border-left: 3px solid #0f766e44; }
#uw-live-lines p { display: block; margin: 0; overflow-wrap: anywhere; }
#uw-live-lines .uw-heard { opacity: .75; font-size: .9em; }
#uw-live-lines .uw-guess { opacity: .45; }
#uw-live-lines .uw-english { font-size: 1.15em; min-height: 1.5em; }
"""

_POLICIES = {
    "utterance": "at the end of each sentence",
    "agreement": "as soon as it is sure",
    "wait-k": "three words later",
}


def live_panel(
    languages: Sequence[tuple[str, str]], targets: Sequence[tuple[str, str]], has_texts: bool, follows: bool = True
) -> str:
    """The tab's content. Everything in it is escaped; the script above does the rest.

    Args:
        languages: Name and code of each source language.
        targets: Likewise of the target languages.
        has_texts: Whether the model writes texts.
        follows: Whether it knows the target where none is chosen; else the first one is.
    """
    targets = [*([("what follows from it", "")] if follows else []), *targets]
    policies = list(_POLICIES.items()) if has_texts else list(_POLICIES.items())[:1]
    several = "" if len([code for _, code in targets if code]) > 1 else " hidden"
    return (
        '<div class="uw-live"><button id="uw-live-button" type="button">Start</button>'
        f"<label>Translate {_select('policy', [(text, value) for value, text in policies])}</label>"
        f"<label>Language {_select('language', [('detect', ''), *languages])}</label>"
        f"<label{several}>Into {_select('target_language', targets)}</label>"
        '<label><input id="uw-live-speech" type="checkbox" checked> Speak the translation</label></div>'
        '<div id="uw-live-state" class="uw-message" role="status">Press Start and speak. Use headphones, so '
        "that the microphone does not pick up the translation.</div>"
        '<ol id="uw-live-lines" aria-live="polite" aria-label="Translation"></ol>'
    )


def _select(name: str, choices: Sequence[tuple[str, str]]) -> str:
    """A menu of pairs of text and value."""
    options = (f'<option value="{html.escape(value)}">{html.escape(text)}</option>' for text, value in choices)
    return f'<select id="uw-live-{name}">{"".join(options)}</select>'
