-- The objects that a record names, as JSON: what can be removed is known without reading records.
alter table records add column objects text collate "C" not null default '[]';
