import { Chat, login } from "./chat.js";

document.querySelector("main").textContent = `${Chat.name}, ${login.name}`;
