// Shows this server's own OpenAPI document. The bundled Swagger UI reads OpenAPI 3.0, so the few words of 3.1
// that the document uses are translated here, for the page only.
"use strict";

const form = document.getElementById("key");
const error = document.getElementById("error");
let key = "";

function translated(node) {
  if (Array.isArray(node)) return node.map(translated);
  if (node === null || typeof node !== "object") return node;
  const made = {};
  for (const [name, value] of Object.entries(node)) {
    if (name === "type" && Array.isArray(value)) {
      const types = value.filter((type) => type !== "null");
      if (types.length < value.length) made.nullable = true;
      if (types.length === 1) made.type = types[0];
      else made.anyOf = types.map((type) => ({ type }));
    } else if (name === "examples" && Array.isArray(value)) {
      made.example = value[0];
    } else if (name === "example" || name === "enum" || name === "required") {
      made[name] = value;
    } else if (name === "properties") {
      made[name] = Object.fromEntries(Object.entries(value).map(([field, of]) => [field, translated(of)]));
    } else {
      made[name] = translated(value);
    }
  }
  return made;
}

function headers() {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

async function show() {
  const answer = await fetch(`openapi.json${location.search}`, { headers: headers() });
  const body = await answer.json();
  error.hidden = answer.ok || (answer.status === 401 && !key);
  error.textContent = body.error || "";
  form.hidden = answer.status !== 401 && answer.status !== 403;
  if (!answer.ok) return;
  SwaggerUIBundle({
    spec: { ...translated(body), openapi: "3.0.3", servers: [{ url: new URL(".", location.href).href.replace(/\/$/, "") }] },
    domNode: document.getElementById("docs"),
    docExpansion: "list",
    defaultModelsExpandDepth: -1,
    tryItOutEnabled: true,
    validatorUrl: null,
    requestInterceptor: (request) => ({ ...request, headers: { ...headers(), ...request.headers } }),
  });
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = document.getElementById("text");
  key = text.value.trim();
  text.value = "";
  show();
});
show();
