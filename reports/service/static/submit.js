// The form that submits a configuration.

import { element, say, tell } from "./elements.js";
import { post } from "./server.js";

/** Sets the form up; `onSubmitted` gets the new search. */
export function setUpForm(onSubmitted) {
  const form = document.querySelector("#submit form");
  const text = document.getElementById("configuration");
  const file = form.querySelector("input[type=file]");
  file.addEventListener("click", () => (file.value = "")); // the same file again, after an edit
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
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (asking) return;
    asking = true;
    say(document.getElementById("submitted"), "");
    try {
      const search = await post("/searches", text.value, "application/yaml");
      showRefusal(null);
      onSubmitted(search);
      showSubmitted(search.name);
    } catch (error) {
      showRefusal(error);
    }
    asking = false;
  });

  // In the page they are disabled: without this script, the browser itself would send the form, to nowhere.
  for (const control of form.elements) control.disabled = false;
  showExample();

  function showExample() {
    document.getElementById("example").disabled = text.value.trim() !== "";
  }
}

function showSubmitted(name) {
  const link = element("a", { href: `#search-${encodeURIComponent(name)}` }, name);
  const line = document.getElementById("submitted");
  line.hidden = false;
  line.replaceChildren("Submitted: ", link, ".");
}

/** What the service has against the configuration, fault by fault; the text stays as it is. */
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
