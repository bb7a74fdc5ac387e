// Declares BullMQ's jobs as client.py's orders say.
const readline = require('readline');
const { FlowProducer, Queue } = require('bullmq');
const { chain, connection, fanIn } = require('./bullmq_flows.js');

const flows = new FlowProducer({ connection });
const queue = new Queue('tasks', { connection });
const now = () => (performance.timeOrigin + performance.now()) / 1000;

const declareByShape = {
  fan_in: (order) => flows.add(fanIn(order.count, order.body)),
  chain: (order) => flows.add(chain(order.count)),
  diamonds: async (order) => {
    for (let i = 0; i < order.count; i++) await queue.add('source', {});
  },
};

async function timed(call) {
  const beganAt = now();
  await call();
  return { began_at: beganAt, seconds: now() - beganAt };
}

async function trickle(order) {
  const enqueuedAt = [];
  for (let i = 0; i < order.count; i++) {
    await new Promise((resolve) => setTimeout(resolve, order.pause_s * 1000 * (0.5 + Math.random())));
    enqueuedAt.push(now());
    await queue.add('nothing', {});
  }
  return { enqueued_at: enqueuedAt };
}

async function carryOut(order) {
  if (order.do === 'go') return timed(() => queue.resume());
  if (order.do === 'trickle') return trickle(order);
  if (order.hold) await queue.pause();
  return timed(() => declareByShape[order.shape](order));
}

async function main() {
  await Promise.all([flows.waitUntilReady(), queue.waitUntilReady()]);
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const answer = await carryOut(JSON.parse(line)).catch((error) => ({ error: String(error) }));
    console.log(JSON.stringify(answer));
  }
  process.exit(0);
}

main();
