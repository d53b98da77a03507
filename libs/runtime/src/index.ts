export * from './runtime.ts';
export { createRuntime } from './host-runtime.ts';
