mod math;
mod product;
mod recurrent;
