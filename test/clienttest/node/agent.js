// An agent on the npm package ws; what it is asked and tells is in agent_test.go.
// The certificates that it trusts come with the environment (NODE_EXTRA_CA_CERTS).
'use strict';

const readline = require('node:readline');
const WebSocket = require('ws');

let socket;

const tell = (event) => process.stdout.write(JSON.stringify(event) + '\n');

const commands = {
  async request({ method, url, header, text }) {
    const response = await fetch(url, { method, headers: header, body: text });
    tell({ event: 'response', status: response.status, text: await response.text() });
  },

  connect({ url, header, protocols }) {
    socket = new WebSocket(url, protocols ?? [], { headers: header });
    socket.on('unexpected-response', (request, response) => {
      tell({ event: 'refused', status: response.statusCode });
      request.destroy();
    });
    socket.on('error', (error) => tell({ event: 'failed', text: error.message }));
    socket.on('open', function () {
      tell({ event: 'open', text: this.protocol });
      this.on('close', (code, reason) => tell({ event: 'close', code, text: reason.toString() }));
    });
    socket.on('message', (frame, binary) => tell({ event: binary ? 'binary' : 'text', text: frame.toString() }));
    socket.on('pong', (payload) => tell({ event: 'pong', text: payload.toString() }));
  },

  send({ text }) { socket.send(text); },
  ping({ text }) { socket.ping(text); },
  close({ code }) { socket.close(code); },
  drop() { socket.terminate(); },
};

readline.createInterface({ input: process.stdin })
  .on('line', (line) => {
    const command = JSON.parse(line);
    Promise.resolve(commands[command.do](command))
      .catch((error) => tell({ event: 'failed', text: String(error.cause ?? error) }));
  })
  .on('close', () => process.exit());
