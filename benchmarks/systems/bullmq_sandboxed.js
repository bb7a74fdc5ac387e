// The processor of BullMQ's sandboxed worker: it is loaded by a process of its own.
const { perform } = require('./bullmq_mark.js');

module.exports = async (job) => perform(job);
