// What the page says, in English and Spanish. Every key is in both.

const english = {
  "title": "Chat",
  "close": "Close",
  "cancel": "Cancel",
  "logout": "Log out",
  "you": "you",
  "role.admin": "Admin",

  "login.title": "Log in",
  "login.lead": "Messages as they happen.",
  "login.username": "Username",
  "login.password": "Password",
  "login.button": "Log in",
  "login.busy": "Logging in…",
  "login.refused": "Username or password is wrong.",

  "again.title": "Log in again",
  "again.text": "Your session has ended. What you see stays, and what came meanwhile follows.",
  "again.banner": "Your session has ended.",
  "again.action": "Log in again",

  "view.all": "All messages",
  "view.all-lead": "Everything that reaches you, in one place",
  "view.everyone": "Everyone",
  "view.everyone-lead": "Messages to everyone connected",
  "view.own": "Just for you",
  "view.own-lead": "Messages that only you can read",
  "view.channel-lead": "Messages to those who joined this channel",

  "channels.title": "Channels",
  "channels.open": "Channels",
  "channels.open-unread": "Channels, with new messages",
  "channels.join-label": "Join a channel",
  "channels.join-placeholder": "name",
  "channels.join": "Join",
  "channels.leave": "Leave #{channel}",
  "channels.invalid": "A channel's name has up to 128 letters (A to Z), digits, and . _ : -",
  "channels.unread": { one: "{count} new", other: "{count} new" },

  "people.title": "Connected",
  "people.open": { one: "Who is connected: {count} person", other: "Who is connected: {count} people" },
  "people.sockets": { one: "{count} socket", other: "{count} sockets" },
  "people.since": "since {time}",
  "people.write": "Write",
  "people.write-to": "Write to {name}",
  "people.disconnect": "Disconnect",
  "people.disconnect-name": "Disconnect {name}",
  "people.find": "Find by name",
  "people.more": { one: "And {count} more: part of a name finds them.", other: "And {count} more: part of a name finds them." },
  "people.none": "Nobody by that name is connected.",
  "people.stale": "This list could not be brought up to date.",
  "people.confirm-title": "Disconnect {name}?",
  "people.confirm-text": "All windows and devices of theirs are disconnected now. They can log in again.",
  "people.disconnected": { one: "{name} was disconnected: {count} socket.", other: "{name} was disconnected: {count} sockets." },
  "people.disconnected-none": "{name} was not connected any more.",

  "notify.label": "Notifications",
  "notify.on": "On",
  "notify.off": "Off",
  "notify.blocked": "Blocked by the browser",

  "composer.to": "To",
  "composer.label": "Message",
  "composer.placeholder": "Write a message",
  "composer.send": "Send",
  "composer.sending": "Sending…",
  "composer.waiting": "It is sent as soon as there is a connection.",
  "composer.hint": "Enter sends, Shift+Enter starts a new line.",
  "composer.everyone": "Everyone",
  "composer.channels": "Channels",
  "composer.people": "People",
  "composer.other-channel": "Another channel…",
  "composer.other-person": "Another person…",
  "composer.channel-name": "Name of the channel",
  "composer.person-name": "Username of the person",
  "composer.no-name": "Say whom it is for.",
  "composer.sent-to": "Sent to {name}.",
  "composer.settled": "It was sent after all.",

  "feed.label": "Messages",
  "feed.to": "to {name}",
  "feed.for-you": "just for you",
  "feed.everyone": "everyone",
  "feed.system": "Notice",
  "feed.loading": "Loading earlier messages…",
  "feed.beginning": "This is where it begins.",
  "feed.dropped": "Earlier messages are no longer kept.",
  "feed.failed": "Earlier messages could not be loaded.",
  "feed.retry": "Try again",
  "feed.empty": "No messages yet.",
  "feed.newer": { one: "{count} new message", other: "{count} new messages" },
  "feed.latest": "To the latest",

  "state.connecting": "Connecting…",
  "state.open": "Connected",
  "state.waiting": "No connection",
  "state.closed": "Disconnected",
  "state.countdown": { one: "No connection. Trying again in {count} s.", other: "No connection. Trying again in {count} s." },
  "state.now": "Try now",
  "state.retrying": "No connection. Trying again…",
  "state.lost": "Connection lost. Trying again by itself.",
  "state.again": "Connect again",

  "mark.complete": "Connected again: you missed nothing",
  "mark.gap": "Connected again: something may be missing",
  "mark.away": "Without a connection from {from} to {to}.",
  "mark.gap-channels": "What came meanwhile may no longer be kept: {channels}.",

  "end.disconnected": "An administrator disconnected you.",
  "end.replaced": "This window was disconnected: you have too many others open.",
  "end.other": "The connection has ended: {reason}",

  "error.unauthenticated": "Your session has ended: log in again first. Your text is kept here.",
  "error.rate_limited": "That was too often. Try again in a little while.",
  "error.rate_limited-wait": { one: "That was too often. Try again in {count} second.", other: "That was too often. Try again in {count} seconds." },
  "error.network": "The server cannot be reached. Check the connection and try again.",
  "error.unavailable": "The server cannot do that right now. Try again in a little while.",
  "error.forbidden": "You are not allowed to do that.",
  "error.invalid": "The server does not accept this: {reason}",
  "error.too_large": "This is too long for one message. Shorten it, or send it in parts.",
  "error.not_joined": "You are not in this channel.",
  "error.unconfirmed": "The connection broke before the answer came, so this may have been sent. Look for it above before you send it again.",
  "error.closed": "There is no connection. Your text is kept here.",
  "error.not_found": "There is no chat service at this address, or one without a login of its own.",
  "error.protocol": "What the server says makes no sense.",
  "error.other": "That did not work: {reason}",
};

const spanish = {
  "title": "Chat",
  "close": "Cerrar",
  "cancel": "Cancelar",
  "logout": "Salir",
  "you": "tú",
  "role.admin": "Admin",

  "login.title": "Entrar",
  "login.lead": "Los mensajes, al instante.",
  "login.username": "Usuario",
  "login.password": "Contraseña",
  "login.button": "Entrar",
  "login.busy": "Entrando…",
  "login.refused": "El usuario o la contraseña no son correctos.",

  "again.title": "Vuelve a entrar",
  "again.text": "Tu sesión ha terminado. Lo que ves se conserva y, al entrar, recibirás lo que haya llegado entretanto.",
  "again.banner": "Tu sesión ha terminado.",
  "again.action": "Volver a entrar",

  "view.all": "Todos los mensajes",
  "view.all-lead": "Todo lo que te llega, en un solo sitio",
  "view.everyone": "General",
  "view.everyone-lead": "Mensajes para todas las personas conectadas",
  "view.own": "Solo para ti",
  "view.own-lead": "Mensajes que solo tú puedes leer",
  "view.channel-lead": "Mensajes para quienes están en este canal",

  "channels.title": "Canales",
  "channels.open": "Canales",
  "channels.open-unread": "Canales, con mensajes nuevos",
  "channels.join-label": "Unirse a un canal",
  "channels.join-placeholder": "nombre",
  "channels.join": "Unirse",
  "channels.leave": "Salir de #{channel}",
  "channels.invalid": "El nombre de un canal tiene hasta 128 caracteres: letras de la A a la Z (sin tildes ni eñes), cifras y . _ : -",
  "channels.unread": { one: "{count} nuevo", other: "{count} nuevos" },

  "people.title": "Conectados",
  "people.open": { one: "Quién está conectado: {count} persona", other: "Quién está conectado: {count} personas" },
  "people.sockets": { one: "{count} conexión", other: "{count} conexiones" },
  "people.since": "desde {time}",
  "people.write": "Escribir",
  "people.write-to": "Escribir a {name}",
  "people.disconnect": "Desconectar",
  "people.disconnect-name": "Desconectar a {name}",
  "people.find": "Buscar por nombre",
  "people.more": { one: "Y {count} más: búscalo por una parte del nombre.", other: "Y {count} más: búscalos por una parte del nombre." },
  "people.none": "No hay nadie conectado con ese nombre.",
  "people.stale": "No se ha podido actualizar esta lista.",
  "people.confirm-title": "¿Desconectar a {name}?",
  "people.confirm-text": "Se desconectarán ahora todas sus ventanas y dispositivos. Podrá volver a entrar.",
  "people.disconnected": { one: "Se ha desconectado a {name}: {count} conexión.", other: "Se ha desconectado a {name}: {count} conexiones." },
  "people.disconnected-none": "{name} ya no estaba en línea.",

  "notify.label": "Notificaciones",
  "notify.on": "Sí",
  "notify.off": "No",
  "notify.blocked": "Las bloquea el navegador",

  "composer.to": "Para",
  "composer.label": "Mensaje",
  "composer.placeholder": "Escribe un mensaje",
  "composer.send": "Enviar",
  "composer.sending": "Enviando…",
  "composer.waiting": "Se enviará en cuanto haya conexión.",
  "composer.hint": "Intro envía, Mayús+Intro empieza otra línea.",
  "composer.everyone": "General",
  "composer.channels": "Canales",
  "composer.people": "Personas",
  "composer.other-channel": "Otro canal…",
  "composer.other-person": "Otra persona…",
  "composer.channel-name": "Nombre del canal",
  "composer.person-name": "Nombre de usuario",
  "composer.no-name": "Indica para quién es.",
  "composer.sent-to": "Enviado a {name}.",
  "composer.settled": "Al final sí se envió.",

  "feed.label": "Mensajes",
  "feed.to": "para {name}",
  "feed.for-you": "solo para ti",
  "feed.everyone": "general",
  "feed.system": "Aviso",
  "feed.loading": "Cargando mensajes anteriores…",
  "feed.beginning": "Aquí empieza todo.",
  "feed.dropped": "Los mensajes anteriores ya no se conservan.",
  "feed.failed": "No se han podido cargar los mensajes anteriores.",
  "feed.retry": "Reintentar",
  "feed.empty": "Todavía no hay mensajes.",
  "feed.newer": { one: "{count} mensaje nuevo", other: "{count} mensajes nuevos" },
  "feed.latest": "Ir al final",

  "state.connecting": "Conectando…",
  "state.open": "En línea",
  "state.waiting": "Sin conexión",
  "state.closed": "Desconectado",
  "state.countdown": { one: "Sin conexión. Nuevo intento en {count} s.", other: "Sin conexión. Nuevo intento en {count} s." },
  "state.now": "Reintentar ahora",
  "state.retrying": "Sin conexión. Reintentando…",
  "state.lost": "Se ha perdido la conexión. Se reintentará automáticamente.",
  "state.again": "Volver a conectar",

  "mark.complete": "De nuevo en línea: no te has perdido nada",
  "mark.gap": "De nuevo en línea: puede que falte algo",
  "mark.away": "Sin conexión de {from} a {to}.",
  "mark.gap-channels": "Puede que ya no se conserve lo que llegó entretanto: {channels}.",

  "end.disconnected": "Te ha desconectado un administrador.",
  "end.replaced": "Esta ventana se ha desconectado: tienes demasiadas abiertas.",
  "end.other": "La conexión ha terminado: {reason}",

  "error.unauthenticated": "Tu sesión ha terminado: primero tienes que volver a entrar. Tu texto se conserva aquí.",
  "error.rate_limited": "Demasiados intentos seguidos. Vuelve a intentarlo dentro de un rato.",
  "error.rate_limited-wait": { one: "Demasiados intentos seguidos. Vuelve a intentarlo dentro de {count} segundo.", other: "Demasiados intentos seguidos. Vuelve a intentarlo dentro de {count} segundos." },
  "error.network": "No se puede contactar con el servidor. Comprueba la conexión y vuelve a intentarlo.",
  "error.unavailable": "El servidor no puede hacerlo ahora. Vuelve a intentarlo dentro de un rato.",
  "error.forbidden": "No tienes permiso para hacer eso.",
  "error.invalid": "El servidor no lo acepta: {reason}",
  "error.too_large": "Es demasiado largo para un solo mensaje. Acórtalo o envíalo por partes.",
  "error.not_joined": "No estás en este canal.",
  "error.unconfirmed": "La conexión se cortó antes de que llegara la respuesta, así que puede que se haya enviado. Búscalo arriba antes de enviarlo otra vez.",
  "error.closed": "No hay conexión. Tu texto se conserva aquí.",
  "error.not_found": "En esta dirección no hay ningún servicio de chat, o no tiene un login propio.",
  "error.protocol": "No se entiende lo que responde el servidor.",
  "error.other": "No ha funcionado: {reason}",
};

// preferred is the first of the reader's languages that the page speaks, with its
// region, which decides how dates look.
const preferred = (navigator.languages ?? []).find((tag) => /^(en|es)\b/i.test(tag)) ?? "en";

/** The language of the texts: "en" or "es". */
export const language = preferred.slice(0, 2).toLowerCase();

const texts = language === "es" ? spanish : english;
const plural = new Intl.PluralRules(language);
const number = new Intl.NumberFormat(preferred);

/** A text by its key, with what stands in braces filled in. `count` picks the form. */
export function text(key, values = {}) {
  let template = texts[key];
  if (typeof template === "object") template = template[plural.select(values.count)] ?? template.other;
  return template.replace(/\{(\w+)\}/g, (_, name) =>
    typeof values[name] === "number" ? number.format(values[name]) : values[name]);
}

/** Each key with the names of what is filled in. */
export const keys = () => Object.entries(texts).map(([key, value]) =>
  [key, [...new Set(JSON.stringify(value).match(/\{\w+\}/g))].sort().join(" ")]).sort();

/** What went wrong, in words for people. */
export function problem(error) {
  const reason = error?.message || String(error);
  if (error?.kind === "rate_limited" && error.retryAfter > 0) {
    return text("error.rate_limited-wait", { count: Math.ceil(error.retryAfter) });
  }
  let kind = error?.kind;
  if (kind === "disconnected" || kind === "replaced") kind = "closed"; // which the banner tells of
  if (error?.name === "TimeoutError") kind = "network";
  const key = `error.${kind}`;
  return Object.hasOwn(texts, key) ? text(key, { reason }) : text("error.other", { reason });
}

/** Puts the texts into what has an attribute that names one. */
export function translate(root) {
  document.documentElement.lang = language;
  for (const e of root.querySelectorAll("[data-text]")) e.textContent = text(e.dataset.text);
  for (const e of root.querySelectorAll("[data-label]")) e.setAttribute("aria-label", text(e.dataset.label, { count: 0 }));
  for (const e of root.querySelectorAll("[data-placeholder]")) e.placeholder = text(e.dataset.placeholder);
}

const formats = {
  time: new Intl.DateTimeFormat(preferred, { timeStyle: "short" }),
  seconds: new Intl.DateTimeFormat(preferred, { timeStyle: "medium" }),
  day: new Intl.DateTimeFormat(preferred, { weekday: "long", day: "numeric", month: "long" }),
  year: new Intl.DateTimeFormat(preferred, { weekday: "long", day: "numeric", month: "long", year: "numeric" }),
  short: new Intl.DateTimeFormat(preferred, { day: "numeric", month: "short", hour: "numeric", minute: "2-digit" }),
  full: new Intl.DateTimeFormat(preferred, { dateStyle: "full", timeStyle: "medium" }),
};
const relative = new Intl.RelativeTimeFormat(preferred, { numeric: "auto" });

/** A time in the reader's zone: "time", "seconds", "day", "year", "short" or "full". */
export const format = (style, at) => formats[style].format(at);

/** The time, with the date unless that is today. */
export const moment = (at) => format(sameDay(at, Date.now()) ? "time" : "short", at);

export const sameDay = (a, b) => new Date(a).toDateString() === new Date(b).toDateString();

/** "Today", "Yesterday", or the date. */
export function dayName(at) {
  const midnight = (t) => new Date(t).setHours(0, 0, 0, 0);
  const days = Math.round((midnight(at) - midnight(Date.now())) / 86_400_000);
  const name = days === 0 || days === -1
    ? relative.format(days, "day")
    : format(new Date(at).getFullYear() === new Date().getFullYear() ? "day" : "year", at);
  return name.charAt(0).toLocaleUpperCase(preferred) + name.slice(1);
}

/** Names as a sentence lists them. */
export const list = (names) => new Intl.ListFormat(preferred, { type: "conjunction" }).format(names);
