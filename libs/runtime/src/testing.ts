/** For the specs of those who run real containers. */
export { removeState, testOptions, traces } from './testing/host.ts';
export { baseLayer, startRegistry, type TestImage, type TestRegistry } from './testing/registry.ts';
