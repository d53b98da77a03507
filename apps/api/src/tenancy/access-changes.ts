import {
  Inject,
  Injectable,
  type OnApplicationBootstrap,
  type OnApplicationShutdown,
} from '@nestjs/common';
import { accessChannel, type Tenancy } from '@bulkhead/tenancy';
import { TENANCY } from './tenancy.key.ts';

/**
 * Says when a user may do less than before (signed out everywhere, token revoked, role lowered,
 * removed), whichever replica was asked for it: sockets and streams then look again at once. They
 * look again from time to time all the same, for what a broken connection lost and for what expires.
 */
@Injectable()
export class AccessChanges implements OnApplicationBootstrap, OnApplicationShutdown {
  readonly #listeners = new Set<(userId: string | null) => void>();
  #stop: (() => Promise<void>) | null = null;

  constructor(@Inject(TENANCY) private readonly tenancy: Tenancy) {}

  onApplicationBootstrap(): void {
    this.#stop = this.tenancy.listen(accessChannel, (userId) => {
      for (const listener of [...this.#listeners]) listener(userId);
    });
  }

  async onApplicationShutdown(): Promise<void> {
    await this.#stop?.();
  }

  /** Calls `look` for changes of this user's rights, until the answered function is called. */
  watch(userId: string, look: () => void): () => void {
    const listener = (changed: string | null) => {
      if (changed === null || changed === userId) look();
    };
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}
