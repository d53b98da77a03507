/**
 * The events of a subscription as an iterator that can be ended while it waits. A generator alone
 * cannot: its `return` stands in line behind the `next` that is pending. `source` must let go of
 * every wait when the signal fires.
 */
export function endable<T>(
  source: (ending: AbortSignal) => AsyncGenerator<T, void>,
): AsyncGenerator<T, void> {
  const controller = new AbortController();
  const events = source(controller.signal);
  const end = <R>(finish: () => R): R => {
    controller.abort();
    return finish();
  };
  return {
    next: () => events.next(),
    return: () => end(() => events.return()),
    throw: (error: unknown) => end(() => events.throw(error)),
    [Symbol.asyncIterator]() {
      return this;
    },
    [Symbol.asyncDispose]: async () => {
      await end(() => events.return());
    },
  };
}
