export * from './runtime.ts';
export { createRuntime } from './host-runtime.ts';
export * from './doctor/index.ts';
