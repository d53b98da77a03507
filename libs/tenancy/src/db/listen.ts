import pg from 'pg';

/** Pause before the next attempt after the connection broke, milliseconds. */
const retryMs = 500;

/**
 * Listens on a PostgreSQL channel over a connection of its own, for as long as it takes: a broken
 * connection is made again. `heard` is called with every notification, and once after each
 * (re)connection with null, because what was said meanwhile is lost. Answers how to stop.
 */
export function listen(
  databaseUrl: string,
  channel: string,
  heard: (payload: string | null) => void,
): () => Promise<void> {
  let stopped = false;
  let client: pg.Client | null = null;
  let timer: NodeJS.Timeout | null = null;

  const retry = () => {
    client = null;
    if (stopped || timer) return;
    timer = setTimeout(() => {
      timer = null;
      void connect();
    }, retryMs);
  };

  const connect = async (): Promise<void> => {
    const next = new pg.Client({
      connectionString: databaseUrl,
      application_name: `bulkhead listen ${channel}`,
      connectionTimeoutMillis: 5000,
      keepAlive: true,
    });
    client = next;
    next.on('notification', ({ payload }) => heard(payload ?? null));
    // Without a listener a lost connection would end the process; `end` follows it.
    next.on('error', () => undefined);
    next.on('end', retry);
    try {
      await next.connect();
      await next.query(`LISTEN ${pg.escapeIdentifier(channel)}`);
      heard(null);
    } catch {
      await next.end().catch(() => undefined);
      retry();
    }
  };

  void connect();
  return async () => {
    stopped = true;
    if (timer) clearTimeout(timer);
    await client?.end().catch(() => undefined);
  };
}
