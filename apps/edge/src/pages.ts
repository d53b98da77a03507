/** What a visitor sees instead of an app. Self-contained, and the same whoever's app it is. */
export interface ErrorPage {
  /** In the header X-Bulkhead-Error, for machines. */
  readonly code: string;
  readonly status: number;
  readonly title: string;
  readonly text: string;
  readonly retryAfter: number | null;
}

/** Hosts whose entry in the map says why nothing serves; the key is that entry. */
export const hostPages: Readonly<Record<string, ErrorPage>> = {
  none: {
    code: 'no-such-app',
    status: 404,
    title: 'No such app',
    text: 'No app answers to this host name. Check the address, or create the app first.',
    retryAfter: null,
  },
  stopped: {
    code: 'stopped',
    status: 503,
    title: 'App is stopped',
    text: 'This app is stopped. Its owner can start it again, or scale it up if it has zero instances.',
    retryAfter: null,
  },
  paused: {
    code: 'paused',
    status: 503,
    title: 'App is paused',
    text: 'This app is paused. It answers again when its owner resumes it.',
    retryAfter: null,
  },
  starting: {
    code: 'starting',
    status: 503,
    title: 'App is starting',
    text: 'This app is starting. Try again in a few seconds.',
    retryAfter: 2,
  },
  crashed: {
    code: 'crashed',
    status: 503,
    title: 'App has crashed',
    text: 'No instance of this app is running. Its owner finds the reason in the logs.',
    retryAfter: 10,
  },
};

/** What HAProxy answers by itself; the key is the status. */
export const gatewayPages: Readonly<Record<number, ErrorPage>> = {
  400: page(400, 'bad-request', 'Bad request', 'The request is not valid HTTP.'),
  405: page(
    405,
    'method-not-allowed',
    'Method not allowed',
    'The edge does not pass CONNECT and TRACE on.',
  ),
  408: page(408, 'request-timeout', 'Request timeout', 'The request did not arrive in time.'),
  413: page(
    413,
    'body-too-large',
    'Too large',
    'The body of the request is larger than is taken here.',
  ),
  500: page(500, 'edge-error', 'Internal error', 'The edge could not handle the request.'),
  502: page(
    502,
    'bad-gateway',
    'Bad gateway',
    'The app closed the connection or gave no valid answer.',
  ),
  503: page(
    503,
    'unavailable',
    'App does not answer',
    'No instance of this app can be reached right now.',
    2,
  ),
  504: page(504, 'gateway-timeout', 'Gateway timeout', 'The app did not answer in time.'),
};

/** Of a request. Past 15 KiB of headers HAProxy's parser answers 400 by itself, with no page of ours. */
export const mostHeaders = 100;
export const mostHeaderBytes = 12 * 1024;
export const headersPage = page(
  431,
  'headers-too-large',
  'Headers too large',
  `The request has more than ${mostHeaders} headers, or more than ${mostHeaderBytes / 1024} KiB of them. In a browser, clearing the cookies of this site helps.`,
);

/** While the edge is more than half full, for an app that has more requests under way than are left. */
export const busyPage = page(
  503,
  'app-busy',
  'App is busy',
  'This app has too many requests under way. Try again in a few seconds.',
  2,
);

function page(
  status: number,
  code: string,
  title: string,
  text: string,
  retryAfter: number | null = null,
): ErrorPage {
  return { status, code, title, text, retryAfter };
}

export function htmlOf({ status, title, text }: ErrorPage): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title}</title>
<style>
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; display: grid; place-content: center; min-height: 100vh; margin: 0; }
main { max-width: 32rem; padding: 2rem; }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; }
p { margin: 0; }
small { display: block; margin-top: 1.5rem; opacity: .6; }
</style>
</head>
<body>
<main>
<h1>${title}</h1>
<p>${text}</p>
<small>${status} &middot; bulkhead</small>
</main>
</body>
</html>
`;
}

export const jsonOf = ({ status, code, text }: ErrorPage): string =>
  `${JSON.stringify({ status, error: code, message: text })}\n`;
