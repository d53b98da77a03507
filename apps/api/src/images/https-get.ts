/**
 * GET for requests that a tenant's words decide: only https, only to public addresses, with limits
 * on time and size. `fetch` cannot do it: the address must be checked at the very connection, or a
 * name that resolves differently the second time slips through.
 */
import { lookup } from 'node:dns';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest, type RequestOptions } from 'node:https';
import { isIP, type LookupFunction } from 'node:net';
import { isPublicAddress } from './addresses.ts';

export interface Answer {
  status: number;
  headers: IncomingMessage['headers'];
  body: Buffer;
}

export interface GetOptions {
  headers: Record<string, string>;
  maxBytes: number;
  signal: AbortSignal;
  /** Where the platform's own registry is: reached as configured, by http and on any address. */
  trustedOrigin: string;
  /** For tests. */
  isAllowed?: (address: string) => boolean;
  ca?: string;
}

/** An address that is closed to requests of tenants. */
export class ForbiddenAddress extends Error {}
/** More bytes than asked for. */
export class TooLarge extends Error {}

/** @throws ForbiddenAddress, TooLarge, or what the network says. */
export async function get(url: URL, options: GetOptions): Promise<Answer> {
  const trusted = url.origin === options.trustedOrigin;
  const isAllowed = options.isAllowed ?? isPublicAddress;
  if (!trusted) {
    if (url.protocol !== 'https:') throw new ForbiddenAddress('only https is allowed');
    const host = url.hostname.replace(/^\[|\]$/g, '');
    if (isIP(host) !== 0 && !isAllowed(host)) throw new ForbiddenAddress(`${host} is not public`);
  }
  const settings: RequestOptions = {
    headers: { ...options.headers, 'user-agent': 'bulkhead' },
    signal: options.signal,
    agent: false,
    ...(trusted ? {} : { lookup: checkedLookup(isAllowed) }),
    ...(options.ca !== undefined && { ca: options.ca }),
  };
  const send = url.protocol === 'https:' ? httpsRequest : httpRequest;
  return new Promise((resolve, reject) => {
    const sent = send(url, settings, (response) => {
      readBody(response, options.maxBytes).then(
        (body) => resolve({ status: response.statusCode ?? 0, headers: response.headers, body }),
        reject,
      );
    });
    sent.on('error', reject);
    sent.end();
  });
}

/** Resolves a name and refuses it when any of its addresses is closed. */
function checkedLookup(isAllowed: (address: string) => boolean): LookupFunction {
  return (host, options, callback) => {
    lookup(host, { ...options, all: true }, (error, addresses) => {
      if (error) return callback(error, '', 0);
      const closed = addresses.find(({ address }) => !isAllowed(address));
      const [first] = addresses;
      if (closed || !first) {
        return callback(new ForbiddenAddress(`${host} is not on the public internet`), '', 0);
      }
      if (options.all) return callback(null, addresses);
      callback(null, first.address, first.family);
    });
  };
}

async function readBody(response: IncomingMessage, maxBytes: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > maxBytes) {
      response.destroy();
      throw new TooLarge(`more than ${maxBytes} bytes`);
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
