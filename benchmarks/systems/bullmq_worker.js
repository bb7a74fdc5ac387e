// A worker of BullMQ: node bullmq_worker.js CONCURRENCY [sandboxed]
const { FlowProducer, Worker } = require('bullmq');
const { connection, diamondBehindSource } = require('./bullmq_flows.js');
const { perform } = require('./bullmq_mark.js');

const flows = new FlowProducer({ connection });

// A flow is a tree, so the job that begins a diamond adds the rest when it runs.
const inProcess = async (job) => {
  perform(job);
  if (job.name === 'source') await flows.add(diamondBehindSource());
};

const [concurrency, sandboxed] = process.argv.slice(2);
const processor = sandboxed ? `${__dirname}/bullmq_sandboxed.js` : inProcess;
const worker = new Worker('tasks', processor, { connection, concurrency: Number(concurrency) });
for (const event of ['failed', 'error']) worker.on(event, (...words) => console.error(...words));
