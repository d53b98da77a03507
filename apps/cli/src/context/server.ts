import { isIP } from 'node:net';
import { CliError, usageError } from '../errors.ts';

export const defaultServer = 'http://127.0.0.1:4000';

/** Whether a host name from a URL can only mean this machine. */
export function isLoopback(hostname: string): boolean {
  const host = hostname.replace(/^\[|\]$/g, '').toLowerCase();
  if (isIP(host) === 4) return host.startsWith('127.');
  return host === '::1' || host === 'localhost' || host.endsWith('.localhost');
}

/**
 * The server's base URL without a trailing slash or `/graphql`. A name without a scheme means https,
 * or http on this machine. Throws a usage error for anything that is not a URL of a server, and
 * refuses plain http to other machines unless `insecure`: a password would travel in the clear.
 */
export function normaliseServer(text: string, insecure: boolean): string {
  const bare = /^[a-z][a-z0-9+.-]*:\/\//i.test(text) ? text : withScheme(text);
  if (!URL.canParse(bare))
    throw usageError(`"${text}" is not the address of a server`, `Example: ${defaultServer}`);
  const url = new URL(bare);
  if (url.protocol !== 'http:' && url.protocol !== 'https:') {
    throw usageError(`"${text}": the address of a server starts with http:// or https://`);
  }
  if (url.username !== '' || url.password !== '') {
    throw usageError(
      'no user name or password belongs into the address',
      'Use `bulkhead login --email`.',
    );
  }
  if (url.protocol === 'http:' && !insecure && !isLoopback(url.hostname)) {
    throw new CliError(
      'USAGE',
      `plain http to ${url.host} would send passwords and tokens in the clear`,
      {
        hint: `Use https://${url.host}, or --insecure on a network that you trust.`,
      },
    );
  }
  const path = url.pathname.replace(/\/+$/, '').replace(/\/graphql$/, '');
  return `${url.origin}${path}`;
}

function withScheme(text: string): string {
  const host = /^\[[^\]]*\]|^[^/:]+/.exec(text)?.[0] ?? '';
  return `${isLoopback(host) ? 'http' : 'https'}://${text}`;
}
