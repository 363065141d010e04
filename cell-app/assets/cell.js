// Uploads, changes to posts, and the word that there is news. The page works without it, less those three.
"use strict";

// Where the cell is open, later requests name its machine, so that they come to the same one.
const pin = document.body.dataset.pin;
const headers = pin ? { "fly-force-instance-id": pin } : {};

const reason = (text, status) => {
  try { return JSON.parse(text).error || `Failed (${status}).`; } catch { return `Failed (${status}).`; }
};

const upload = document.getElementById("upload");
upload?.addEventListener("submit", (event) => {
  event.preventDefault();
  const file = upload.querySelector("input").files[0];
  const [button, progress, said] = ["button", "progress", "p"].map((tag) => upload.querySelector(tag));
  // fetch does not tell how much has been sent; this does.
  const request = new XMLHttpRequest();
  request.open("PUT", upload.dataset.files + encodeURIComponent(file.name));
  for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
  request.upload.onprogress = (sent) => { if (sent.total) progress.value = sent.loaded / sent.total; };
  request.onloadend = () => {
    button.disabled = false;
    progress.hidden = true;
    if (request.status === 200 || request.status === 201) location.reload();
    else said.textContent = request.status ? reason(request.responseText, request.status) : "The upload was cut.";
  };
  button.disabled = true;
  progress.hidden = false;
  said.textContent = "";
  request.send(file);
});

const change = document.getElementById("change");
const send = async (method, body, then) => {
  const said = document.getElementById("outcome");
  try {
    const answer = await fetch(change.dataset.url, { method, headers, body });
    if (answer.ok) location.assign(then);
    else said.textContent = reason(await answer.text(), answer.status);
  } catch { said.textContent = "The cell did not answer."; }
};
change?.addEventListener("submit", (event) => {
  event.preventDefault();
  send("PUT", new URLSearchParams(new FormData(change)), change.dataset.url);
});
document.getElementById("remove")?.addEventListener("click", () => send("DELETE", undefined, change.dataset.home));

// Listens only while somebody looks: an open stream keeps the cell awake.
let events;
const listen = () => {
  events?.close();
  events = undefined;
  if (document.hidden) return;
  events = new EventSource(document.body.dataset.events);
  events.onmessage = ({ data }) => { if (JSON.parse(data).post) document.getElementById("news").hidden = false; };
};
document.addEventListener("visibilitychange", listen);
listen();
