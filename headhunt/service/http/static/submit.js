// The form that submits a configuration.

import { element, sending, tell } from "./elements.js";
import { post } from "./server.js";

const KEPT = "configuration"; // in the tab's session storage, so that the text survives an expired login

/** Sets up the form; `onSubmitted` receives the new search. */
export function setUpForm(onSubmitted) {
  const form = document.querySelector("#submit form");
  const text = document.getElementById("configuration");
  const file = form.querySelector("input[type=file]");
  file.addEventListener("click", () => (file.value = "")); // so that the same file can be chosen again after an edit
  file.addEventListener("change", async () => {
    if (file.files.length > 0) text.value = await file.files[0].text();
    showRefusal(null);
  });
  document.getElementById("example").addEventListener("click", () => {
    if (text.value.trim() === "") text.value = text.placeholder;
    text.focus();
  });
  text.addEventListener("input", showExample);
  let asking = false;
  let submitted = "";
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (asking) return;
    asking = true;
    const body = text.value;
    try {
      const answer = post("/searches", { body, type: "application/yaml" });
      const search = await sending(document.getElementById("submitted"), answer);
      submitted = body;
      showRefusal(null);
      onSubmitted(search);
      showSubmitted(search.name);
    } catch (error) {
      showRefusal(error);
    }
    asking = false;
  });

  // Disabled in the HTML: without this script the browser would submit the form itself.
  for (const control of form.elements) control.disabled = false;
  keepText(text, () => text.value !== submitted);
  showExample();

  function showExample() {
    document.getElementById("example").disabled = text.value.trim() !== "";
  }
}

/** Restores the form's text after the page was left; `isWorth` returns whether the text is still unsubmitted. */
function keepText(text, isWorth) {
  addEventListener("pagehide", () => {
    if (isWorth()) sessionStorage.setItem(KEPT, text.value);
    else sessionStorage.removeItem(KEPT);
  });
  try {
    const kept = sessionStorage.getItem(KEPT);
    if (!kept) return;
    if (text.value === "") text.value = kept;
    text.closest("details").open = true;
  } catch {
    // the browser blocks storage for this site
  }
}

function showSubmitted(name) {
  const link = element("a", { href: `#search-${encodeURIComponent(name)}` }, name);
  document.getElementById("submitted").replaceChildren("Submitted: ", link, ".");
}

/** Shows the service's faults of the configuration; the text is unchanged. */
function showRefusal(error) {
  const place = document.getElementById("refusal");
  document.getElementById("configuration").setAttribute("aria-invalid", String(error?.status === 422));
  if (error === null) return place.replaceChildren();
  const list = element("ul");
  place.replaceChildren(element("p"), list);
  tell(place.firstChild, error.message.split("\n")[0]); // the lines after it are the faults
  for (const fault of error.faults ?? []) tell(list.appendChild(element("li")), fault);
  return undefined;
}
