// Runs graphs in onnxruntime-web: node run.mjs MODULES FOLDER. What to run is in FOLDER/jobs.json.
import { readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [modules, folder] = process.argv.slice(2).map((each) => resolve(each));
const dist = join(modules, "onnxruntime-web", "dist", "ort.wasm.min.mjs");
const { env, InferenceSession, Tensor } = await import(pathToFileURL(dist));
env.wasm.numThreads = 1;

const arrays = { float32: Float32Array, int64: BigInt64Array, float16: Uint16Array };
const read = (name) => new Uint8Array(readFileSync(join(folder, name))).slice();

const results = [];
for (const job of JSON.parse(readFileSync(join(folder, "jobs.json"), "utf8"))) {
  const session = await InferenceSession.create(read(job.graph), { executionProviders: ["wasm"] });
  const feeds = {};
  for (const { name, type, shape, file } of job.inputs) {
    feeds[name] = new Tensor(type, new arrays[type](read(file).buffer), shape);
  }
  await session.run(feeds); // the first time is not measured
  const begun = performance.now();
  const found = await session.run(feeds);
  const milliseconds = performance.now() - begun;
  const outputs = session.outputNames.map((name, place) => {
    const { type, dims, data } = found[name];
    const file = `${job.name}.${place}.out`;
    writeFileSync(join(folder, file), new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    return { type, shape: dims.map(Number), file };
  });
  results.push({ name: job.name, milliseconds, outputs });
}
writeFileSync(join(folder, "results.json"), JSON.stringify({ version: env.versions.web, results }));
