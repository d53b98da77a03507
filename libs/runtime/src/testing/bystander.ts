import { request } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { expect } from 'vitest';
import { identify } from '../processes.ts';
import type { ContainerStatus } from '../runtime.ts';
import { until } from './host.ts';

/** How long an answer may take: this machine is busy, and what is cut off never answers. */
const patienceMs = 5000;

/** A container that has nothing to do with what is tested: asked without pause, from this host, for as long as it lives. */
export class Bystander {
  readonly pid: number;
  readonly #startTime: string | undefined;
  readonly #url: string;
  readonly #failures: string[] = [];
  readonly #asking: Promise<void>;
  #answers = 0;
  #ended = false;

  constructor(status: ContainerStatus, port: number, path: string) {
    this.pid = status.pid ?? -1;
    this.#startTime = identify(this.pid)?.startTime;
    this.#url = `http://${status.address}:${port}${path}`;
    this.#asking = this.#ask();
  }

  async #ask(): Promise<void> {
    while (!this.#ended) {
      const failure = await this.#once();
      if (failure === null) this.#answers++;
      // Until it listens for the first time.
      else if (this.#answers > 0) this.#failures.push(failure);
      await delay(20);
    }
  }

  /** A new connection each time: that is what fails when walls or routes are not there for a moment. */
  #once(): Promise<string | null> {
    return new Promise((resolve) => {
      const asked = request(this.#url, { agent: false, timeout: patienceMs }, (response) => {
        response
          .resume()
          .on('end', () =>
            resolve(response.statusCode === 200 ? null : `status ${response.statusCode}`),
          );
        response.on('error', (error) => resolve(error.message));
      });
      asked.on('timeout', () => asked.destroy(new Error(`no answer within ${patienceMs} ms`)));
      asked.on('error', (error) => resolve(error.message));
      asked.end();
    });
  }

  answers(): Promise<void> {
    const before = this.#answers;
    return until('the bystander answers', () => this.#answers > before);
  }

  expectUnharmed(): void {
    // Each is told once: the next test is judged by its own.
    expect(this.#failures.splice(0)).toEqual([]);
    expect(identify(this.pid)?.startTime).toBe(this.#startTime);
  }

  async end(): Promise<void> {
    await this.answers();
    this.expectUnharmed();
    this.#ended = true;
    await this.#asking;
  }
}
