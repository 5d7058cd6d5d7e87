// The texts of the web client, in English and Spanish. Both have the same keys.

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
  "again.text": "Your session has ended. This page keeps what you see. After you log in, you receive the messages you missed.",
  "again.banner": "Your session has ended.",
  "again.action": "Log in again",

  "view.all": "All messages",
  "view.all-lead": "Everything that reaches you, in one place",
  "view.everyone": "Everyone",
  "view.everyone-lead": "Messages to everyone connected",
  "view.own": "Just for you",
  "view.own-lead": "Messages that only you can read",
  "view.channel-lead": "Messages to the members of this channel",

  "channels.title": "Channels",
  "channels.open": "Channels",
  "channels.open-unread": "Channels, with new messages",
  "channels.join-label": "Join a channel",
  "channels.join-placeholder": "name",
  "channels.join": "Join",
  "channels.leave": "Leave #{channel}",
  "channels.invalid": "A channel's name has up to 128 characters: letters from A to Z, digits, and . _ : -",
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
  "people.more": { one: "{count} more. Type part of the name to find them.", other: "{count} more. Type part of a name to find them." },
  "people.none": "No connected user has this name.",
  "people.stale": "This list could not be updated.",
  "people.confirm-title": "Disconnect {name}?",
  "people.confirm-text": "This disconnects all windows and devices of this user. The user can log in again.",
  "people.disconnected": { one: "{name} was disconnected: {count} socket.", other: "{name} was disconnected: {count} sockets." },
  "people.disconnected-none": "{name} was no longer connected.",

  "notify.label": "Notifications",
  "notify.on": "On",
  "notify.off": "Off",
  "notify.blocked": "Blocked by the browser",

  "composer.to": "To",
  "composer.label": "Message",
  "composer.placeholder": "Write a message",
  "composer.send": "Send",
  "composer.sending": "Sending…",
  "composer.waiting": "Your message is sent as soon as there is a connection.",
  "composer.hint": "Enter sends, Shift+Enter starts a new line.",
  "composer.everyone": "Everyone",
  "composer.channels": "Channels",
  "composer.people": "People",
  "composer.other-channel": "Another channel…",
  "composer.other-person": "Another person…",
  "composer.channel-name": "Name of the channel",
  "composer.person-name": "Username of the person",
  "composer.no-name": "Enter a recipient.",
  "composer.sent-to": "Sent to {name}.",
  "composer.settled": "Your message was sent after all.",

  "feed.label": "Messages",
  "feed.to": "to {name}",
  "feed.for-you": "just for you",
  "feed.everyone": "everyone",
  "feed.system": "Notice",
  "feed.loading": "Loading earlier messages…",
  "feed.beginning": "There are no earlier messages.",
  "feed.dropped": "Earlier messages are no longer kept.",
  "feed.failed": "Earlier messages could not be loaded.",
  "feed.retry": "Try again",
  "feed.empty": "No messages yet.",
  "feed.newer": { one: "{count} new message", other: "{count} new messages" },
  "feed.latest": "Go to the latest message",

  "state.connecting": "Connecting…",
  "state.open": "Connected",
  "state.waiting": "No connection",
  "state.closed": "Disconnected",
  "state.countdown": { one: "No connection. Trying again in {count} s.", other: "No connection. Trying again in {count} s." },
  "state.now": "Try now",
  "state.retrying": "No connection. Trying again…",
  "state.lost": "Connection lost. Trying to reconnect.",
  "state.again": "Connect again",

  "mark.complete": "Connected again: you missed nothing",
  "mark.gap": "Connected again: some messages may be missing",
  "mark.away": "No connection from {from} to {to}.",
  "mark.gap-channels": "Messages sent meanwhile may no longer be kept: {channels}.",

  "end.disconnected": "An administrator disconnected you.",
  "end.replaced": "This window was disconnected: you have too many others open.",
  "end.other": "The connection has ended: {reason}",

  "error.unauthenticated": "Your session has ended: log in again first. Your text is kept here.",
  "error.rate_limited": "Too many attempts. Try again in a little while.",
  "error.rate_limited-wait": { one: "Too many attempts. Try again in {count} second.", other: "Too many attempts. Try again in {count} seconds." },
  "error.network": "The server cannot be reached. Check the connection and try again.",
  "error.unavailable": "The server cannot do that right now. Try again in a little while.",
  "error.forbidden": "You are not allowed to do that.",
  "error.invalid": "The server does not accept this: {reason}",
  "error.too_large": "This is too long for one message. Shorten it, or send it in parts.",
  "error.not_joined": "You are not in this channel.",
  "error.unconfirmed": "The connection broke before the server answered. Your message may have been sent: look for it above before you send it again.",
  "error.closed": "There is no connection. Your text is kept here.",
  "error.not_found": "There is no chat service at this address, or the service has no login.",
  "error.protocol": "The server's answer is not valid.",
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
  "again.text": "Tu sesión ha terminado. Esta página conserva lo que ves. Cuando vuelvas a entrar, recibirás los mensajes que te has perdido.",
  "again.banner": "Tu sesión ha terminado.",
  "again.action": "Volver a entrar",

  "view.all": "Todos los mensajes",
  "view.all-lead": "Todo lo que te llega, en un solo sitio",
  "view.everyone": "General",
  "view.everyone-lead": "Mensajes para todas las personas conectadas",
  "view.own": "Solo para ti",
  "view.own-lead": "Mensajes que solo tú puedes leer",
  "view.channel-lead": "Mensajes para los miembros de este canal",

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
  "people.more": { one: "{count} más. Escribe una parte del nombre para encontrarlo.", other: "{count} más. Escribe una parte del nombre para encontrarlos." },
  "people.none": "Ningún usuario conectado tiene ese nombre.",
  "people.stale": "No se ha podido actualizar esta lista.",
  "people.confirm-title": "¿Desconectar a {name}?",
  "people.confirm-text": "Se desconectarán todas las ventanas y todos los dispositivos de este usuario. Podrá volver a entrar.",
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
  "composer.waiting": "Tu mensaje se enviará en cuanto haya conexión.",
  "composer.hint": "Intro envía, Mayús+Intro empieza otra línea.",
  "composer.everyone": "General",
  "composer.channels": "Canales",
  "composer.people": "Personas",
  "composer.other-channel": "Otro canal…",
  "composer.other-person": "Otra persona…",
  "composer.channel-name": "Nombre del canal",
  "composer.person-name": "Nombre de usuario",
  "composer.no-name": "Indica un destinatario.",
  "composer.sent-to": "Enviado a {name}.",
  "composer.settled": "Tu mensaje sí se había enviado.",

  "feed.label": "Mensajes",
  "feed.to": "para {name}",
  "feed.for-you": "solo para ti",
  "feed.everyone": "general",
  "feed.system": "Aviso",
  "feed.loading": "Cargando mensajes anteriores…",
  "feed.beginning": "No hay mensajes anteriores.",
  "feed.dropped": "Los mensajes anteriores ya no se conservan.",
  "feed.failed": "No se han podido cargar los mensajes anteriores.",
  "feed.retry": "Reintentar",
  "feed.empty": "Todavía no hay mensajes.",
  "feed.newer": { one: "{count} mensaje nuevo", other: "{count} mensajes nuevos" },
  "feed.latest": "Ir al último mensaje",

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
  "mark.gap": "De nuevo en línea: pueden faltar mensajes",
  "mark.away": "Sin conexión de {from} a {to}.",
  "mark.gap-channels": "Puede que ya no se conserven los mensajes enviados entretanto: {channels}.",

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
  "error.unconfirmed": "La conexión se cortó antes de que respondiera el servidor. Puede que tu mensaje se haya enviado: búscalo arriba antes de enviarlo otra vez.",
  "error.closed": "No hay conexión. Tu texto se conserva aquí.",
  "error.not_found": "En esta dirección no hay ningún servicio de chat, o el servicio no tiene login.",
  "error.protocol": "La respuesta del servidor no es válida.",
  "error.other": "No ha funcionado: {reason}",
};

// preferred is the first of the browser's languages that the web client supports. Its
// region decides the format of dates.
const preferred = (navigator.languages ?? []).find((tag) => /^(en|es)\b/i.test(tag)) ?? "en";

/** The language of the texts: "en" or "es". */
export const language = preferred.slice(0, 2).toLowerCase();

const texts = language === "es" ? spanish : english;
const plural = new Intl.PluralRules(language);
const number = new Intl.NumberFormat(preferred);

/** Returns the text of a key with the values in place of the names in braces. `count` picks the plural form. */
export function text(key, values = {}) {
  let template = texts[key];
  if (typeof template === "object") template = template[plural.select(values.count)] ?? template.other;
  return template.replace(/\{(\w+)\}/g, (_, name) =>
    typeof values[name] === "number" ? number.format(values[name]) : values[name]);
}

/** Returns each key with the names in its braces, so that tests can compare the languages. */
export const keys = () => Object.entries(texts).map(([key, value]) =>
  [key, [...new Set(JSON.stringify(value).match(/\{\w+\}/g))].sort().join(" ")]).sort();

/** Describes an error for the user. */
export function problem(error) {
  const reason = error?.message || String(error);
  if (error?.kind === "rate_limited" && error.retryAfter > 0) {
    return text("error.rate_limited-wait", { count: Math.ceil(error.retryAfter) });
  }
  let kind = error?.kind;
  if (kind === "disconnected" || kind === "replaced") kind = "closed"; // the banner gives the reason
  if (error?.name === "TimeoutError") kind = "network";
  const key = `error.${kind}`;
  return Object.hasOwn(texts, key) ? text(key, { reason }) : text("error.other", { reason });
}

/** Sets the texts of all elements with an attribute data-text, data-label or data-placeholder. */
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

/** Formats a time in the browser's time zone; style: "time", "seconds", "day", "year", "short" or "full". */
export const format = (style, at) => formats[style].format(at);

/** Formats a time, with the date unless it is today. */
export const moment = (at) => format(sameDay(at, Date.now()) ? "time" : "short", at);

export const sameDay = (a, b) => new Date(a).toDateString() === new Date(b).toDateString();

/** Returns "Today", "Yesterday" or the date. */
export function dayName(at) {
  const midnight = (t) => new Date(t).setHours(0, 0, 0, 0);
  const days = Math.round((midnight(at) - midnight(Date.now())) / 86_400_000);
  const name = days === 0 || days === -1
    ? relative.format(days, "day")
    : format(new Date(at).getFullYear() === new Date().getFullYear() ? "day" : "year", at);
  return name.charAt(0).toLocaleUpperCase(preferred) + name.slice(1);
}

/** Joins names into a list: "a, b and c". */
export const list = (names) => new Intl.ListFormat(preferred, { type: "conjunction" }).format(names);
