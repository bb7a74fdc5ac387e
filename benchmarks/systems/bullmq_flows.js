// BullMQ: flows, which are trees of jobs.
const crypto = require('crypto');

const place = new URL(process.env.BENCHMARK_URL);
exports.connection = { host: place.hostname, port: Number(place.port), maxRetriesPerRequest: null };

const job = (name, data = {}, children = undefined) => ({ name, queueName: 'tasks', data, children });
const repeat = (count, make) => Array.from({ length: count }, make);

function readBody(text) {
  const [name, number] = text.split(':');
  if (name !== 'take') return [name, number ? { value: Number(number) } : {}];
  return [name, { value: crypto.randomBytes(Math.floor((number * 3) / 4)).toString('base64') }];
}

exports.fanIn = (count, body) => {
  const [name, data] = readBody(body);
  return job('join', {}, repeat(count, () => job(name, data)));
};

exports.chain = (count) => {
  let before = job('nothing');
  for (let i = 0; i < count - 2; i++) before = job('nothing', {}, [before]);
  return job('join', {}, [before]);
};

exports.diamondBehindSource = () => job('join', {}, repeat(4, () => job('nothing')));
