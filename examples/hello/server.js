/**
 * A web service without dependencies: shows its config and which instance answered, logs each
 * request as a line, and leaves without losing one.
 */
import { createServer } from 'node:http';

const {
  PORT = '8080',
  GREETING = 'Hello from Bulkhead',
  BULKHEAD_APP: app = 'hello',
  BULKHEAD_RELEASE: release = 'none',
  BULKHEAD_INSTANCE: instance = process.env.HOSTNAME ?? 'local',
} = process.env;

let leaving = false;

const escapes = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };
const escapeHtml = (text) => text.replace(/[&<>"]/g, (character) => escapes[character]);

const page = () => `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(app)}</title>
<style>
:root { color-scheme: light dark; }
body { font: 1.1rem/1.6 system-ui, sans-serif; max-width: 36rem; margin: 15vh auto; padding: 0 1rem; }
code { font-size: 1em; }
</style>
<h1>${escapeHtml(GREETING)}</h1>
<p>Release <code>${escapeHtml(release)}</code>, answered by instance <code>${escapeHtml(instance)}</code>.</p>
<p>Try <code>bulkhead scale web=3</code> and reload, or <code>bulkhead config set GREETING=Ahoy</code>.</p>
`;

function answer(request) {
  const { pathname } = new URL(request.url, 'http://localhost');
  if (request.method !== 'GET' && request.method !== 'HEAD')
    return [405, 'text/plain', 'only GET is answered\n'];
  switch (pathname) {
    case '/':
      return [200, 'text/html; charset=utf-8', page()];
    case '/info':
      return [
        200,
        'application/json',
        `${JSON.stringify({ app, release, instance, greeting: GREETING })}\n`,
      ];
    case '/healthz':
      return [200, 'text/plain', 'ok\n'];
    default:
      return [404, 'text/plain', 'not found\n'];
  }
}

const server = createServer((request, response) => {
  const started = performance.now();
  const [status, type, body] = answer(request);
  response.on('close', () => {
    console.log(
      `${request.method} ${request.url} ${status} ${(performance.now() - started).toFixed(1)} ms`,
    );
  });
  // Whoever keeps this connection shall not send another request into a process that is about to end.
  if (leaving) response.setHeader('connection', 'close');
  response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(body) });
  response.end(body);
});
// Longer than a proxy in front keeps idle connections, so that it is the proxy that closes them.
server.keepAliveTimeout = 75_000;
server.listen(Number(PORT), () =>
  console.log(`${app} ${release} listens on ${PORT} as ${instance}`),
);

// As PID 1 a process gets no default handlers: without these, SIGTERM would be ignored.
for (const signal of ['SIGTERM', 'SIGINT']) {
  process.on(signal, () => {
    console.log(`${signal}: finishing requests`);
    leaving = true;
    server.close(() => process.exit(0));
    server.closeIdleConnections();
  });
}
