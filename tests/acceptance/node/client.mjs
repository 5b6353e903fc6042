// Plays every scenario of test_node_client.py with the official Node client and prints what it saw as JSON.
// Usage: node client.mjs FOLDER_OF_NODE_MODULES BASE_URL
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [folder, baseURL] = process.argv.slice(2);
const required = createRequire(pathToFileURL(`${folder}/`)).resolve("openai");
const { default: OpenAI } = await import(pathToFileURL(required));
const client = new OpenAI({ baseURL, apiKey: "sk-client", maxRetries: 2 });
const messages = [{ role: "user", content: "hello" }];
const said = (script) => ({ headers: { "x-script": script } });

async function text(stream) {
  let all = "";
  for await (const chunk of stream) all += chunk.choices[0]?.delta?.content ?? "";
  return all;
}

async function failure(call) {
  try {
    await call();
    return null;
  } catch (error) {
    return { name: error.constructor.name, status: error.status ?? null, code: error.code ?? null };
  }
}

const create = (more, options) => client.chat.completions.create({ model: "m", messages, ...more }, options);
const seen = {};

seen.whole = (await create({})).choices[0].message.content;
seen.stream = await text(await create({ stream: true }));
const { data, response } = await create({}).withResponse();
seen.withResponse = [data.choices.length, response.headers.get("x-request-id")];
const tools = ["lookup", "clock"].map((name) => ({ type: "function", function: { name, parameters: { type: "object" } } }));
const called = await client.chat.completions
  .stream({ model: "m", messages, tools, parallel_tool_calls: true }, said('{"tool_calls":[{"name":"lookup"},{"name":"clock"}]}'))
  .finalChatCompletion();
seen.tools = called.choices[0].message.tool_calls.map((call) => call.function.name);
seen.usage = [];
for await (const chunk of await create({ stream: true, stream_options: { include_usage: true } })) {
  if (chunk.usage) seen.usage.push(chunk.usage.completion_tokens);
}
seen.embedding = (await client.embeddings.create({ model: "m", input: "a" })).data[0].embedding.length;
seen.response = (await client.responses.create({ model: "m", input: "a" })).output_text;
seen.models = [];
for await (const model of client.models.list()) seen.models.push(model.id);

seen.badRequest = await failure(() => create({}, said("status=400")));
seen.unknownModel = await failure(() => create({ model: "nobody" }));
seen.rateLimit = await failure(() => create({}, said("status=429")));
seen.broken = await failure(() => create({}, said("refuse")));
seen.dies = await failure(async () => text(await create({ stream: true }, said("die_mid_event"))));
seen.endsEarly = await failure(async () => text(await create({ stream: true }, said("no_done, after=2"))));
seen.stalls = await failure(async () => text(await create({ stream: true }, said("stall_mid_stream, after=2"))));

const stream = await create({ stream: true }, said("stall_mid_stream, after=2"));
for await (const _ of stream) break; // leaving the loop aborts the request
seen.left = true;
console.log(JSON.stringify(seen));
