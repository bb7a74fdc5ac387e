// What BullMQ's jobs do: see mark.py.
const fs = require('fs');
const path = require('path');

const fileByName = {};

function note(name) {
  const at = (performance.timeOrigin + performance.now()) / 1000;
  fileByName[name] ??= fs.openSync(path.join(process.env.BENCHMARK_MARKS, name), 'a');
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleLE(at);
  fs.writeSync(fileByName[name], bytes);
}

function usedMs() {
  const used = process.cpuUsage();
  return (used.user + used.system) / 1000;
}

function spin(ms) {
  const until = usedMs() + ms;
  while (usedMs() < until);
}

exports.perform = (job) => {
  if (job.name === 'join') return note('joins');
  if (job.name === 'spin') spin(job.data.value);
  note('ends');
};
