/** A worker without a port: ticks, and says what it was told by its config. */
const { QUEUE = 'default', INTERVAL_MS = '5000', BULKHEAD_RELEASE: release = 'none' } = process.env;

let ticks = 0;
console.log(`worker ${release} starts on queue ${QUEUE}`);
const timer = setInterval(() => {
  ticks += 1;
  console.log(`tick ${ticks} on queue ${QUEUE}`);
}, Number(INTERVAL_MS));

// As PID 1 a process gets no default handlers: without these, SIGTERM would be ignored.
for (const signal of ['SIGTERM', 'SIGINT']) {
  process.on(signal, () => {
    console.log(`${signal}: stopping after ${ticks} ticks`);
    clearInterval(timer);
  });
}
