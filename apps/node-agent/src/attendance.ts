/**
 * Says every few seconds that this node is there, and hears who may connect to its containers and
 * where those of others are. With it the node renews its certificate, long before it ends: by its
 * present one, so that a node that was away for too long, or was removed, must join anew.
 */
import { X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { apiServerName } from '@bulkhead/protocol';
import { makeRequest } from '@bulkhead/protocol/certificates';
import { RelayClient, channelOptions, type Fleet } from '@bulkhead/protocol/relay';
import type { ContainerRuntime, FleetPlaces } from '@bulkhead/runtime';
import { credentials } from '@grpc/grpc-js';
import type { Logger } from 'pino';
import { z } from 'zod';
import { writeAtomically } from './files.ts';

const everyMs = 5_000;
const answerMs = 5_000;
/** Of its life that a certificate has left when it is renewed. */
const renewAtShare = 1 / 3;

const places = z.object({
  edges: z.array(z.ipv4()),
  places: z.array(z.object({ address: z.ipv4(), network: z.cidrv4() })),
});

export interface AttendanceOptions {
  /** Where to attend, host:port. */
  readonly streams: string;
  readonly nodeDir: string;
  readonly runtime: Pick<ContainerRuntime, 'setFleet'>;
  readonly log: Logger;
  readonly now?: () => Date;
}

export class Attendance {
  readonly #options: AttendanceOptions;
  readonly #stop = new AbortController();
  #running: Promise<void> = Promise.resolve();
  #failing = false;

  constructor(options: AttendanceOptions) {
    this.#options = options;
  }

  /** What was heard last holds until something else is: the API may be away. */
  async start(): Promise<void> {
    const known = await this.#read('places.json').catch(() => null);
    if (known !== null) await this.#options.runtime.setFleet(places.parse(JSON.parse(known)));
    this.#running = this.#run();
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      try {
        await this.attend();
        this.#failing = false;
      } catch (error) {
        if (!this.#failing) this.#options.log.warn({ err: error }, 'cannot attend, trying on');
        this.#failing = true;
      }
      // Spread, so that a fleet that lost the API does not come back in step.
      const pause = everyMs * (0.75 + Math.random() / 2);
      await delay(pause, undefined, { signal, ref: false }).catch(() => undefined);
    }
  }

  /** Once. */
  async attend(): Promise<void> {
    const { runtime, log } = this.#options;
    // Of the same key: its certificate is then replaced by one rename, and no moment is without a pair.
    const request = (await this.#shouldRenew())
      ? await makeRequest(await this.#read('tls/key.pem'))
      : '';
    const fleet = await this.#ask(request);
    const heard = places.parse({ edges: fleet.edges ?? [], places: fleet.places ?? [] });
    if (request !== '' && fleet.certificate) {
      await writeAtomically(this.#file('tls/cert.pem'), fleet.certificate, { durable: true });
      log.info('has a new certificate');
    }
    await this.#remember(heard);
    await runtime.setFleet(heard);
  }

  async #ask(certificateRequest: string): Promise<Fleet> {
    const [ca, key, cert] = await Promise.all(
      ['ca', 'key', 'cert'].map((name) => readFile(this.#file(`tls/${name}.pem`))),
    );
    const client = new RelayClient(this.#options.streams, credentials.createSsl(ca, key, cert), {
      ...channelOptions,
      'grpc.ssl_target_name_override': apiServerName,
      'grpc.default_authority': apiServerName,
    });
    try {
      return await new Promise<Fleet>((resolve, reject) => {
        const deadline = new Date(Date.now() + answerMs);
        client.attend({ certificateRequest }, { deadline }, (error, fleet) =>
          error ? reject(error) : resolve(fleet ?? {}),
        );
      });
    } finally {
      client.close();
    }
  }

  async #shouldRenew(): Promise<boolean> {
    const certificate = new X509Certificate(await this.#read('tls/cert.pem'));
    const [from, to] = [certificate.validFrom, certificate.validTo].map(Date.parse);
    if (from === undefined || to === undefined) return true;
    const now = (this.#options.now?.() ?? new Date()).getTime();
    return to - now < (to - from) * renewAtShare;
  }

  async #remember(heard: FleetPlaces): Promise<void> {
    const text = JSON.stringify(heard);
    if ((await this.#read('places.json').catch(() => '')) === text) return;
    await writeAtomically(this.#file('places.json'), text, { durable: false });
  }

  #read(name: string): Promise<string> {
    return readFile(this.#file(name), 'utf8');
  }

  #file(name: string): string {
    return join(this.#options.nodeDir, name);
  }
}
