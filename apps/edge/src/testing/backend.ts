import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import type { RouteBackend } from '@bulkhead/protocol';

export interface Echo {
  name: string;
  method: string;
  url: string;
  headers: IncomingHttpHeaders;
  bytes: number;
}

/**
 * An app's instance: says who it is and what it got. `/slow?ms` waits, `/stream` sends in pieces,
 * `/bytes?n` sends so many,
 * an upgrade to websocket is echoed byte by byte.
 */
export class TestBackend {
  readonly name: string;
  requests = 0;
  active = 0;
  readonly urls: string[] = [];
  readonly #server: Server;

  private constructor(name: string) {
    this.name = name;
    this.#server = createServer((request, response) => {
      void (async () => {
        this.requests += 1;
        this.active += 1;
        response.on('close', () => (this.active -= 1));
        let bytes = 0;
        for await (const chunk of request) bytes += (chunk as Buffer).length;
        const url = new URL(request.url ?? '/', 'http://app');
        this.urls.push(request.url ?? '');
        if (url.pathname === '/bytes') {
          const piece = Buffer.alloc(1024 * 1024, 'x');
          for (let left = Number(url.search.slice(1)); left > 0; left -= piece.length) {
            if (!response.write(piece.subarray(0, left))) await once(response, 'drain');
          }
          response.end();
          return;
        }
        if (url.pathname === '/slow') await delay(Number(url.search.slice(1)));
        if (url.pathname === '/stream') {
          for (let piece = 0; piece < 5; piece += 1) {
            response.write(`piece ${piece}\n`);
            await delay(20);
          }
          response.end();
          return;
        }
        const echo: Echo = {
          name,
          method: request.method ?? '',
          url: request.url ?? '',
          headers: request.headers,
          bytes,
        };
        response.setHeader('content-type', 'application/json');
        response.end(JSON.stringify(echo));
      })().catch(() => response.destroy());
    });
    this.#server.on('upgrade', (request, socket) => {
      const key = request.headers['sec-websocket-key'] ?? '';
      const accept = createHash('sha1')
        .update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`)
        .digest('base64');
      socket.write(
        `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`,
      );
      socket.on('error', () => undefined);
      socket.on('data', (chunk) => socket.write(chunk));
    });
  }

  static async start(name: string): Promise<TestBackend> {
    const backend = new TestBackend(name);
    backend.#server.listen(0, '127.0.0.1');
    await once(backend.#server, 'listening');
    return backend;
  }

  get address(): RouteBackend {
    return {
      instance: this.name,
      host: '127.0.0.1',
      port: (this.#server.address() as AddressInfo).port,
    };
  }

  /** At once, as a killed process. */
  kill(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }
}
