import { Counter, Gauge, Histogram } from 'prom-client';

/** The controllers' numbers. The module puts them on the registry that the API's /metrics shows. */
export const metrics = {
  reconciles: new Histogram({
    name: 'bulkhead_reconcile_seconds',
    help: 'Time to look at one app and do what it needs',
    registers: [],
    buckets: [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2],
  }),
  steps: new Counter({
    name: 'bulkhead_rollout_steps_total',
    help: 'Steps of rollouts carried out, by kind',
    registers: [],
    labelNames: ['kind'],
  }),
  placed: new Counter({
    name: 'bulkhead_placements_total',
    help: 'Instances given a node, refused for want of one, or planned on a node that filled up meanwhile',
    registers: [],
    labelNames: ['outcome'],
  }),
  moves: new Counter({
    name: 'bulkhead_rebalancing_moves_total',
    help: 'Instances that were told to move to another node, to spread their process',
    registers: [],
  }),
  published: new Counter({
    name: 'bulkhead_outbox_published_total',
    help: 'Values of the outbox delivered to NATS, and those that have to be tried again',
    registers: [],
    labelNames: ['outcome'],
  }),
  reports: new Counter({
    name: 'bulkhead_reports_total',
    help: 'Reports of agents: written, ignored as old or not of their node, or of stray instances',
    registers: [],
    labelNames: ['outcome'],
  }),
  nodes: new Counter({
    name: 'bulkhead_node_changes_total',
    help: 'Changes of nodes between ready, suspect and lost',
    registers: [],
    labelNames: ['to'],
  }),
  refills: new Counter({
    name: 'bulkhead_refills_total',
    help: 'Times that a bucket was found empty or short and filled from PostgreSQL',
    registers: [],
  }),
  errors: new Counter({
    name: 'bulkhead_controller_errors_total',
    help: 'Errors of control loops; each is in the log and tried again',
    registers: [],
    labelNames: ['loop'],
  }),
  waiting: new Gauge({
    name: 'bulkhead_instances_without_node',
    help: 'Instances that the last plan had no room for',
    registers: [],
  }),
};
