// @ts-check
// Takes the token from the fragment of the URL, which no server and no log sees, and turns it into a cookie.

/** @param {string} text */
function say(text) {
  const status = document.getElementById("status");
  if (status) status.textContent = text;
}

async function enter() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!token) return;
  const answer = await fetch("/enter", { headers: { "x-netwatch-token": token } });
  if (answer.status === 204) {
    // Without the fragment, so that the token does not stay in the history.
    location.replace(location.pathname + location.search);
  } else {
    say("This is not the token of this server: it has a new one each time it starts.");
  }
}

addEventListener("hashchange", () => void enter());
enter().catch(() => say("The server does not answer."));
